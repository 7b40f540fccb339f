"""Which kinds of backends to try, in which order: the table of docs/python.md#recommended-backends.

* privacy and latency choose a cell of `recommendations.toml`;
* throughput `high` puts the ones made for many requests at once (vLLM, TGI) first among the local ones, at the end
  where there are none; `low` and `medium` change nothing;
* cost `frugal` orders by price, local ones first; `balanced` keeps the table's order; `premium` puts hosted ones first,
  whose models are larger than most machines can hold.

Then `disable` takes kinds out, and `prefer` moves kinds to the front, or adds them there. What the privacy tier does
not admit is never recommended, preferred or not.
"""

import tomllib
from collections.abc import Iterable
from copy import copy
from functools import cache
from importlib import resources
from typing import Self

from batuta_cli.serve.backends.kinds import ServingBackend
from batuta_cli.serve.tiers import CostTier, LatencyTier, PrivacyTier, ThroughputTier


class BackendSelector:
    """Recommends backends for what a caller asks. Names may be given in place of the enumerations.

    Raises `UsageError` for a name that is unknown.
    """

    def __init__(
        self,
        privacy: PrivacyTier | str = PrivacyTier.STANDARD,
        latency: LatencyTier | str = LatencyTier.INTERACTIVE,
        throughput: ThroughputTier | str = ThroughputTier.MEDIUM,
        cost: CostTier | str = CostTier.BALANCED,
        prefer: Iterable[ServingBackend | str] = (),
        disable: Iterable[ServingBackend | str] = (),
    ) -> None:
        self.privacy = PrivacyTier.parse(privacy)
        self.latency = LatencyTier.parse(latency)
        self.throughput = ThroughputTier.parse(throughput)
        self.cost = CostTier.parse(cost)
        self.prefer = tuple(dict.fromkeys(ServingBackend.parse(name) for name in prefer))
        self.disable = frozenset(ServingBackend.parse(name) for name in disable)

    def with_privacy(self, privacy: PrivacyTier | str) -> Self:
        """A copy with this privacy tier. Raises `UsageError` for an unknown name, as the other `with_` methods do."""
        return self._with(privacy=PrivacyTier.parse(privacy))

    def with_latency(self, latency: LatencyTier | str) -> Self:
        """A copy with this latency tier."""
        return self._with(latency=LatencyTier.parse(latency))

    def with_throughput(self, throughput: ThroughputTier | str) -> Self:
        """A copy with this throughput tier."""
        return self._with(throughput=ThroughputTier.parse(throughput))

    def with_cost(self, cost: CostTier | str) -> Self:
        """A copy with this cost tier."""
        return self._with(cost=CostTier.parse(cost))

    def _with(self, **tiers: PrivacyTier | LatencyTier | ThroughputTier | CostTier) -> Self:
        changed = copy(self)
        vars(changed).update(tiers)
        return changed

    def recommend(self) -> list[ServingBackend]:
        """The kinds to try, best first; each at most once."""
        chosen = list(_table()[self.latency, self.privacy])
        if self.throughput is ThroughputTier.HIGH:
            chosen = _made_for_many_first(chosen)
        if self.cost is CostTier.FRUGAL:
            chosen.sort(key=lambda backend: backend.profile.cost_rank)
        elif self.cost is CostTier.PREMIUM:
            chosen.sort(key=lambda backend: backend.is_local)
        ordered = dict.fromkeys([*self.prefer, *chosen])
        return [b for b in ordered if b not in self.disable and self.privacy.admits(b.tier)]


def _made_for_many_first(chosen: list[ServingBackend]) -> list[ServingBackend]:
    many = [b for b in ServingBackend if b.is_local and b.profile.throughput is ThroughputTier.HIGH]
    rest = [b for b in chosen if b not in many]
    first_local = next((i for i, b in enumerate(rest) if b.is_local), len(rest))
    return [*rest[:first_local], *many, *rest[first_local:]]


@cache
def _table() -> dict[tuple[LatencyTier, PrivacyTier], tuple[ServingBackend, ...]]:
    path = resources.files("batuta_cli.serve.backends") / "recommendations.toml"
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        (LatencyTier.parse(latency), PrivacyTier.parse(privacy)): tuple(ServingBackend.parse(name) for name in names)
        for latency, row in document.items()
        for privacy, names in row.items()
    }

"""Recommends kinds of backends in order, by the table of docs/python.md#recommended-backends.

* Privacy and latency choose a cell of `recommendations.toml`.
* Throughput `high` puts the kinds for many concurrent requests (vLLM, TGI) before the other local kinds, or at the end
  of a list without local kinds. `low` and `medium` change nothing.
* Cost `frugal` orders by price, local kinds first. `balanced` keeps the table's order. `premium` puts hosted kinds
  first, because their models are larger than most machines can run.

Then `disable` removes kinds, and `prefer` moves or adds kinds to the front. A kind that the privacy tier does not allow
is never recommended.
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
    """Recommends backends for the given tiers. Names are accepted in place of the enumerations.

    Raises `UsageError` for an unknown name.
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
        """The kinds to try, best first, without duplicates."""
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

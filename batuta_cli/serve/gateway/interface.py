"""What the gateway asks of the pipeline, and nothing more; `batuta_cli.serve.pipeline` is what does it.

`start` may be cancelled, and `aclose` may be called at any time and more than once: that is how a client that leaves
frees its backend.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from batuta_cli.serve.budget.breaker import BudgetStatus
from batuta_cli.serve.pipeline.request import ChatRequest, Summary
from batuta_cli.serve.providers.wire import Piece
from batuta_cli.serve.tiers import PrivacyTier


class Plan(Protocol):
    """Which backends were considered."""

    @property
    def decision(self) -> str:
        """`local` or `spillover`."""

    @property
    def reason(self) -> str:
        """One word for why."""

    @property
    def fallbacks(self) -> Sequence[str]:
        """Which backends would take over."""


class Answer(Protocol):
    """An answer whose first piece is there."""

    @property
    def backend(self) -> str:
        """The backend that speaks now."""

    @property
    def tier(self) -> PrivacyTier:
        """The privacy tier that the request went out under."""

    @property
    def plan(self) -> Plan | None:
        """Why that backend."""

    @property
    def summary(self) -> Summary | None:
        """What it took; None before it has ended."""

    async def more(self) -> Sequence[Piece]:
        """Its next pieces; none only when the answer is complete, and raises when it cannot be completed."""

    async def aclose(self) -> None:
        """Nobody listens any more: frees the backend and settles the budget."""


class Readiness(Protocol):
    """Whether requests can be answered."""

    @property
    def ok(self) -> bool:
        """Some backend answers."""

    @property
    def reason(self) -> str:
        """Why not."""


class Gauges(Protocol):
    """The state of things, for `/metrics`."""

    @property
    def queue_depth(self) -> Mapping[str, int]:
        """Requests that wait or run at a backend as far as is known, by backend."""

    @property
    def budget(self) -> BudgetStatus:
        """How the day stands."""


class Pipeline(Protocol):
    """The one path of a request."""

    async def start(self, request: ChatRequest) -> Answer:
        """Answers when the first piece is there. Raises a `BatutaError` when there is none to be had."""

    def models(self) -> Sequence[str]:
        """The models that can be asked for by name."""

    def ready(self) -> Readiness:
        """Whether requests can be answered."""

    async def gauges(self) -> Gauges:
        """The state of things. Raises `LedgerError`."""


OpenPipeline = Callable[[], AbstractAsyncContextManager[Pipeline]]
"""Opens the pipeline of one process and event loop."""

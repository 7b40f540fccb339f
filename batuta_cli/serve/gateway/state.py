"""What all routes of one gateway process share: settings, access check, metrics, log, the pipeline, open requests."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from batuta_cli.errors import BatutaError
from batuta_cli.faults import as_typed
from batuta_cli.serve.gateway import logs, metrics
from batuta_cli.serve.gateway.access import AccessCheck
from batuta_cli.serve.gateway.connection import Connection, ConnectionLimits
from batuta_cli.serve.gateway.http_errors import HttpError
from batuta_cli.serve.tiers import PrivacyTier

if TYPE_CHECKING:
    from batuta_cli.serve.pipeline.pipeline import Pipeline


@dataclass(frozen=True)
class GatewaySettings:
    """The operator's settings."""

    privacy: PrivacyTier = PrivacyTier.STANDARD
    origins: tuple[str, ...] = ()
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)


class GatewayState:
    """The shared state. Use it in one event loop."""

    def __init__(self, settings: GatewaySettings, access: AccessCheck, log: logs.Log) -> None:
        self.settings = settings
        self.access = access
        self.log = log
        self.metrics = metrics.Metrics()
        self.pipeline: Pipeline | None = None
        """None until it is open, and again after it is closed."""
        self.draining = False
        """The gateway is shutting down: it takes no new requests."""
        self.open_requests: set[Connection] = set()
        self.idle = asyncio.Event()
        """Set while there are no open requests."""
        self.idle.set()

    def require_pipeline(self) -> "Pipeline":
        """The open pipeline. Raises `HttpError` 503 when there is none."""
        if self.pipeline is None:
            raise HttpError(503, "starting", "the gateway is starting or shutting down", retry_after=1)
        return self.pipeline

    @contextmanager
    def open_request(self, connection: Connection) -> Iterator[None]:
        """Count a request as open during the block; `drain` waits for it."""
        self.open_requests.add(connection)
        self.idle.clear()
        try:
            yield
        finally:
            self.open_requests.discard(connection)
            if not self.open_requests:
                self.idle.set()

    def handled(self, error: BaseException) -> Exception:
        """The error to report for `error`, counted as a fault unless it is an expected `HttpError` or `BatutaError`.

        Native panics, `MemoryError` and `RecursionError` become typed errors. Raises `error` again when it is a
        cancellation or ends the process.
        """
        typed = as_typed(error)
        if typed is None and not isinstance(error, Exception):
            raise error
        if typed is not None or not isinstance(error, HttpError | BatutaError):
            self.metrics.fault("internal" if typed is None else typed.kind)
        if typed is None:
            return cast(Exception, error)
        typed.__cause__ = error
        return typed

    async def refresh_gauges(self) -> None:
        """Read the gauges from the pipeline. An unreadable ledger is logged and does not hide the other metrics."""
        if self.pipeline is not None:
            try:
                self.metrics.refresh(await self.pipeline.gauges())
            except BaseException as error:
                self.log.write("error", "gauges", **logs.describe(self.handled(error)))
        self.metrics.log_dropped(self.log.dropped)

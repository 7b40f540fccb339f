"""What all routes of one gateway process share: settings, access check, metrics, log, the pipeline, open requests."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from batuta_cli.errors import BatutaError
from batuta_cli.faults import as_typed
from batuta_cli.serve.gateway import METRICS_DIRECTORY, logs, metrics
from batuta_cli.serve.gateway.access import AccessCheck
from batuta_cli.serve.gateway.connection import BodyMemory, Connection, ConnectionLimits
from batuta_cli.serve.gateway.http_errors import HttpError
from batuta_cli.serve.gateway.key_counts import FileCounts, MemoryCounts
from batuta_cli.serve.gateway.key_throttle import KeyQueueSettings, KeyThrottle
from batuta_cli.serve.tiers import PrivacyTier

if TYPE_CHECKING:
    from batuta_cli.serve.pipeline.pipeline import Pipeline


_STORAGE_SECONDS = 1.0


@dataclass(frozen=True)
class GatewaySettings:
    """The operator's settings."""

    privacy: PrivacyTier = PrivacyTier.STANDARD
    origins: tuple[str, ...] = ()
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    media_hosts: tuple[str, ...] = ()
    """Hosts from which backends in the user's own networks may fetch what a message names by a URL."""
    key_queue: KeyQueueSettings = field(default_factory=KeyQueueSettings)


class GatewayState:
    """The shared state. Use it in one event loop."""

    def __init__(self, settings: GatewaySettings, access: AccessCheck, log: logs.Log) -> None:
        self.settings = settings
        self.access = access
        self.log = log
        self.metrics = metrics.Metrics()
        self.bodies = BodyMemory(settings.limits.largest_sum)
        workers = os.environ.get(METRICS_DIRECTORY)
        self.throttle = KeyThrottle(FileCounts(Path(workers)) if workers else MemoryCounts())
        self.throttle.queue = settings.key_queue
        self.pipeline: Pipeline | None = None
        """None until it is open, and again after it is closed."""
        self._storage_checked = -_STORAGE_SECONDS
        self._storage_error: Exception | None = None
        self.draining = False
        """The gateway is shutting down: it takes no new requests."""
        self.open_requests: dict[Connection, Pipeline] = {}
        """Requests in progress, each with the pipeline that it uses."""
        self.idle = asyncio.Event()
        """Set while there are no open requests."""
        self.idle.set()
        self.request_ended = asyncio.Event()
        """Set at the end of each request; cleared by those who wait for it."""

    def require_pipeline(self) -> "Pipeline":
        """The open pipeline. Raises `HttpError` 503 when it is not open."""
        if self.pipeline is None:
            raise HttpError(503, "starting", "the gateway is starting or shutting down", retry_after=1)
        return self.pipeline

    @contextmanager
    def open_request(self, connection: Connection) -> "Iterator[Pipeline]":
        """Count a request as open during the block, and give the pipeline for it. Raises `HttpError`.

        `drain` waits for the request, and `wait_until_unused` for those of its pipeline.
        """
        pipeline = self.require_pipeline()
        self.open_requests[connection] = pipeline
        self.idle.clear()
        try:
            yield pipeline
        finally:
            del self.open_requests[connection]
            self.request_ended.set()
            if not self.open_requests:
                self.idle.set()

    async def wait_until_unused(self, pipeline: "Pipeline") -> None:
        """Wait until no open request uses `pipeline`."""
        while any(used is pipeline for used in self.open_requests.values()):
            self.request_ended.clear()
            await self.request_ended.wait()

    def apply(self, settings: GatewaySettings) -> None:
        """Use other settings from the next request on."""
        self.settings = settings
        self.access.origins = settings.origins
        self.bodies.limit = settings.limits.largest_sum
        self.throttle.queue = settings.key_queue

    async def storage_error(self) -> Exception | None:
        """The error of the ledger or the audit log if one of them cannot be written.

        It is checked at most once a second, because `/ready` needs no key.
        """
        now = time.monotonic()
        if self.pipeline is not None and now - self._storage_checked >= _STORAGE_SECONDS:
            self._storage_checked = now
            try:
                await self.pipeline.check_storage()
            except BaseException as raised:
                error = self.handled(raised)
                if self._storage_error is None:
                    self.log.write("error", "storage", **logs.describe(error))
                self._storage_error = error
            else:
                self._storage_error = None
        return self._storage_error

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

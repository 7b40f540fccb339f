"""What `/metrics` shows, in Prometheus' text format.

With several workers, prometheus-client adds them up through files in `PROMETHEUS_MULTIPROC_DIR`, which must be in the
environment before this module's classes are first used. The gauges are read from the pipeline when they are asked for;
those of the other workers are as old as `refresh` was called there.
"""

import os
from typing import TYPE_CHECKING, Generic, TypeVar

import prometheus_client as prometheus
from prometheus_client import multiprocess
from prometheus_client.metrics import MetricWrapperBase

from batuta_cli.serve.gateway import METRICS_DIRECTORY
from batuta_cli.serve.money import NANO
from batuta_cli.serve.pipeline.request import Summary

if TYPE_CHECKING:
    from batuta_cli.serve.pipeline.pipeline import Gauges

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST

M = TypeVar("M", bound=MetricWrapperBase)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class _Series(Generic[M]):
    """A metric's series by labels, kept: to look one up in the library takes longer than to count in it."""

    def __init__(self, metric: M) -> None:
        self._metric = metric
        self._kept: dict[tuple[str, ...], M] = {}

    def __call__(self, *labels: str) -> M:
        found = self._kept.get(labels)
        if found is None:
            found = self._kept[labels] = self._metric.labels(*labels)
        return found


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        # The time each series began is a second series for each, which nobody here has a use for.
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = prometheus.CollectorRegistry()
        self._requests = _Series(
            prometheus.Counter(
                "batuta_requests", "Requests by route and HTTP status.", ("route", "status"), registry=registry
            )
        )
        self._seconds = _Series(
            prometheus.Histogram(
                "batuta_request_seconds",
                "From request to end of answer.",
                ("route",),
                buckets=_SECONDS,
                registry=registry,
            )
        )
        self._first = prometheus.Histogram(
            "batuta_first_piece_seconds", "From request to the first piece.", buckets=_SECONDS, registry=registry
        )
        self._tokens = _Series(
            prometheus.Counter(
                "batuta_tokens", "Tokens by backend and direction.", ("backend", "direction"), registry=registry
            )
        )
        self._cost = _Series(
            prometheus.Counter("batuta_cost_usd", "What requests cost, by backend.", ("backend",), registry=registry)
        )
        self._failovers = _Series(
            prometheus.Counter(
                "batuta_failovers", "Answers that another backend had to go on with.", ("backend",), registry=registry
            )
        )
        self._broken = prometheus.Counter(
            "batuta_broken_streams", "Streams that ended with an error event.", registry=registry
        )
        self._left = prometheus.Counter(
            "batuta_clients_left", "Clients that left before their answer was complete.", registry=registry
        )
        self._faults = _Series(
            prometheus.Counter(
                "batuta_faults",
                "Failures of the gateway itself: native panics, missing memory and threads, errors in the program.",
                ("kind",),
                registry=registry,
            )
        )
        self._closed = _Series(
            prometheus.Counter(
                "batuta_connections_closed",
                "Connections that were closed because they exceeded a limit, by limit.",
                ("limit",),
                registry=registry,
            )
        )
        self._log_dropped = prometheus.Counter(
            "batuta_log_dropped", "Lines of the log that its reader was too slow for.", registry=registry
        )
        self._known_dropped = 0
        self._in_flight = self._gauge("batuta_in_flight", "Requests under way by backend.", "livesum", "backend")
        self._depth = self._gauge("batuta_queue_depth", "Requests at a backend.", "livemax", "backend")
        self._budget = self._gauge(
            "batuta_budget_usd", "The daily budget: limit, spent and reserved.", "livemostrecent", "part"
        )

    def _gauge(self, name: str, words: str, mode: str, label: str) -> _Series[prometheus.Gauge]:
        return _Series(prometheus.Gauge(name, words, (label,), registry=self.registry, multiprocess_mode=mode))  # type: ignore[arg-type]

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request has been answered."""
        self._requests(route, str(status)).inc()
        self._seconds(route).observe(seconds)

    def first_piece(self, seconds: float) -> None:
        """An answer has begun."""
        self._first.observe(seconds)

    def answer(self, summary: Summary) -> None:
        """An answer has ended."""
        self._tokens(summary.backend, "input").inc(summary.input_tokens)
        self._tokens(summary.backend, "output").inc(summary.output_tokens)
        for attempt in summary.attempts:
            if attempt.cost:
                self._cost(attempt.backend).inc(attempt.cost / NANO)
            if attempt.failed is not None:
                self._failovers(attempt.backend).inc()

    def broken(self) -> None:
        """A stream could not be completed."""
        self._broken.inc()

    def fault(self, kind: str) -> None:
        """Something failed that is neither the client's nor a backend's fault."""
        self._faults(kind).inc()

    def connection_closed(self, limit: str) -> None:
        """A connection exceeded a limit."""
        self._closed(limit).inc()

    def log_dropped(self, total: int) -> None:
        """How many lines this process's log has dropped until now."""
        self._log_dropped.inc(total - self._known_dropped)
        self._known_dropped = total

    def left(self) -> None:
        """A client has left."""
        self._left.inc()

    def refresh(self, gauges: "Gauges") -> None:
        """Take over the state of things."""
        for backend, depth in gauges.queue_depth.items():
            self._depth(backend).set(depth)
        budget = gauges.budget
        for part, nano in (("limit", budget.daily_budget), ("spent", budget.spent), ("reserved", budget.reserved)):
            self._budget(part).set(nano / NANO)

    def under_way(self, change: int, backend: str) -> None:
        """A request began (1) or ended (-1) at a backend."""
        self._in_flight(backend).inc(change)

    def text(self) -> bytes:
        """All of it, those of other workers included."""
        registry = self.registry
        if os.environ.get(METRICS_DIRECTORY):
            registry = prometheus.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return prometheus.generate_latest(registry)

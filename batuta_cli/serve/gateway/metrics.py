"""The metrics of `/metrics`, in Prometheus' text format.

With several workers, prometheus-client combines them through files in `PROMETHEUS_MULTIPROC_DIR`, which must be in the
environment before this module is imported. `refresh` sets the gauges; those of other workers are as recent as their
last call of `refresh`.
"""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Generic, TypeVar

import prometheus_client as prometheus
from prometheus_client import multiprocess
from prometheus_client.metrics import MetricWrapperBase

from batuta_cli.serve.gateway import METRICS_DIRECTORY
from batuta_cli.serve.gateway.process_metrics import WorkerProcesses, worker_pids
from batuta_cli.serve.money import NANO
from batuta_cli.serve.pipeline.request import AttemptReport, Summary

if TYPE_CHECKING:
    from batuta_cli.serve.pipeline.pipeline import Gauges

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST

MOST_PAIRS = 500
"""Pairs of model and client key with separate series. Names of models may come from clients."""
MOST_MODELS = 100
"""Models with a separate histogram, which has a series for each bucket."""
OTHER = "other"
"""The label of a model, or of a model and its key, beyond these limits."""

M = TypeVar("M", bound=MetricWrapperBase)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class _Series(Generic[M]):
    """Caches a metric's series by labels: a lookup in the library costs more than the increment."""

    def __init__(self, metric: M) -> None:
        self._metric = metric
        self._cache: dict[tuple[str, ...], M] = {}

    def __call__(self, *labels: str) -> M:
        series = self._cache.get(labels)
        if series is None:
            series = self._cache[labels] = self._metric.labels(*labels)
        return series


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        # A `_created` series beside each series would double their number.
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
                "From request to end of response.",
                ("route",),
                buckets=_SECONDS,
                registry=registry,
            )
        )
        self._first_token = _Series(
            prometheus.Histogram(
                "batuta_first_token_seconds",
                "From request to the first token of a stream, by model.",
                ("model",),
                buckets=_SECONDS,
                registry=registry,
            )
        )
        self._model_requests = _Series(
            prometheus.Counter(
                "batuta_model_requests",
                "Requests by model, client key and HTTP status.",
                ("model", "key", "status"),
                registry=registry,
            )
        )
        self._model_tokens = _Series(
            prometheus.Counter(
                "batuta_model_tokens",
                "Tokens by model, client key and direction.",
                ("model", "key", "direction"),
                registry=registry,
            )
        )
        self._model_cost = _Series(
            prometheus.Counter(
                "batuta_model_cost_usd", "Cost by model and client key.", ("model", "key"), registry=registry
            )
        )
        self._pairs: set[tuple[str, str]] = set()
        self._models: set[str] = set()
        self._tokens = _Series(
            prometheus.Counter(
                "batuta_tokens", "Tokens by backend and direction.", ("backend", "direction"), registry=registry
            )
        )
        self._cost = _Series(
            prometheus.Counter("batuta_cost_usd", "Cost of requests by backend.", ("backend",), registry=registry)
        )
        self._failovers = _Series(
            prometheus.Counter(
                "batuta_failovers", "Responses that another backend had to continue.", ("backend",), registry=registry
            )
        )
        self._broken = prometheus.Counter(
            "batuta_broken_streams", "Streams that ended with an error event.", registry=registry
        )
        self._left = prometheus.Counter(
            "batuta_clients_left", "Clients that disconnected before their response was complete.", registry=registry
        )
        self._faults = _Series(
            prometheus.Counter(
                "batuta_faults",
                "Internal faults: native panics, exhausted memory or threads, programming errors.",
                ("kind",),
                registry=registry,
            )
        )
        self._closed = _Series(
            prometheus.Counter(
                "batuta_connections_closed",
                "Connections closed because they exceeded a limit, by limit.",
                ("limit",),
                registry=registry,
            )
        )
        self._log_dropped = prometheus.Counter(
            "batuta_log_dropped", "Log lines dropped because the reader of the log was too slow.", registry=registry
        )
        self._counted_dropped = 0
        self._in_flight = self._gauge("batuta_in_flight", "Requests in progress by backend.", "livesum", "backend")
        self._depth = self._gauge("batuta_queue_depth", "Queue depth by backend.", "livemax", "backend")
        self._budget = self._gauge(
            "batuta_budget_usd", "The daily budget: limit, spent and reserved.", "livemostrecent", "part"
        )

    def _gauge(self, name: str, description: str, mode: str, label: str) -> _Series[prometheus.Gauge]:
        return _Series(prometheus.Gauge(name, description, (label,), registry=self.registry, multiprocess_mode=mode))  # type: ignore[arg-type]

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests(route, str(status)).inc()
        self._seconds(route).observe(seconds)

    def first_token(self, model: str, seconds: float) -> None:
        """Record the time to the first token of a stream."""
        self._first_token(_bounded(model, OTHER, self._models, MOST_MODELS)).observe(seconds)

    def model_request(self, model: str, key: str, status: int) -> None:
        """Count a request for a model that has ended. `key` is the name of the client key, empty without one."""
        self._model_requests(*self._pair(model, key), str(status)).inc()

    def _pair(self, model: str, key: str) -> tuple[str, str]:
        return _bounded((model, key), (OTHER, OTHER), self._pairs, MOST_PAIRS)

    def completed(self, summary: Summary, model: str, key: str) -> None:
        """Count the tokens, cost and failovers of a completed response."""
        pair = self._pair(model, key)
        self._model_tokens(*pair, "input").inc(summary.input_tokens)
        self._model_tokens(*pair, "output").inc(summary.output_tokens)
        self.charged(summary.attempts, model, key)
        self._tokens(summary.backend, "input").inc(summary.input_tokens)
        self._tokens(summary.backend, "output").inc(summary.output_tokens)
        for attempt in summary.attempts:
            if attempt.failed is not None:
                self._failovers(attempt.backend).inc()

    def charged(self, attempts: Iterable[AttemptReport], model: str, key: str) -> None:
        """Count what attempts cost, also those of a response that was not completed."""
        model_cost = self._model_cost(*self._pair(model, key))
        for attempt in attempts:
            model_cost.inc(attempt.cost / NANO)
            if attempt.cost:
                self._cost(attempt.backend).inc(attempt.cost / NANO)

    def broken(self) -> None:
        """Count a stream that ended with an error event."""
        self._broken.inc()

    def fault(self, kind: str) -> None:
        """Count an internal fault."""
        self._faults(kind).inc()

    def connection_closed(self, limit: str) -> None:
        """Count a connection that was closed because it exceeded a limit."""
        self._closed(limit).inc()

    def log_dropped(self, total: int) -> None:
        """Set the number of lines that this process's log has dropped."""
        self._log_dropped.inc(total - self._counted_dropped)
        self._counted_dropped = total

    def client_left(self) -> None:
        """Count a client that disconnected."""
        self._left.inc()

    def refresh(self, gauges: "Gauges") -> None:
        """Set the gauges."""
        for backend, depth in gauges.queue_depth.items():
            self._depth(backend).set(depth)
        budget = gauges.budget
        for part, nano in (("limit", budget.daily_budget), ("spent", budget.spent), ("reserved", budget.reserved)):
            self._budget(part).set(nano / NANO)

    def in_flight(self, change: int, backend: str) -> None:
        """Add `change` to the requests in progress at a backend: 1 when one begins, -1 when it ends."""
        self._in_flight(backend).inc(change)

    def text(self) -> bytes:
        """All metrics, those of other workers included."""
        registry, directory = self.registry, os.environ.get(METRICS_DIRECTORY)
        if directory:
            registry = prometheus.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        processes = prometheus.CollectorRegistry()
        processes.register(WorkerProcesses(worker_pids(directory)))
        return prometheus.generate_latest(registry) + prometheus.generate_latest(processes)


L = TypeVar("L")


def _bounded(label: L, other: L, known: set[L], limit: int) -> L:
    """`label` if it is among the first `limit` ones, else `other`."""
    if label not in known:
        if len(known) >= limit:
            return other
        known.add(label)
    return label

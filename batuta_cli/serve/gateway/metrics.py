"""What `/metrics` shows, in Prometheus' text format.

With several workers, prometheus-client adds them up through files in `PROMETHEUS_MULTIPROC_DIR`, which must be in the
environment before this module's classes are first used. The gauges are read from the pipeline when they are asked for;
those of the other workers are as old as `refresh` was called there.
"""

import os

import prometheus_client as prometheus
from prometheus_client import multiprocess

from batuta_cli.serve.chat import Summary
from batuta_cli.serve.gateway import METRICS_DIRECTORY
from batuta_cli.serve.gateway.interface import Gauges
from batuta_cli.serve.money import NANO

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        # The time each series began is a second series for each, which nobody here has a use for.
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter(
            "batuta_requests", "Requests by route and HTTP status.", ("route", "status"), registry=registry
        )
        self._seconds = prometheus.Histogram(
            "batuta_request_seconds", "From request to end of answer.", ("route",), buckets=_SECONDS, registry=registry
        )
        self._first = prometheus.Histogram(
            "batuta_first_piece_seconds", "From request to the first piece.", buckets=_SECONDS, registry=registry
        )
        self._tokens = prometheus.Counter(
            "batuta_tokens", "Tokens by backend and direction.", ("backend", "direction"), registry=registry
        )
        self._cost = prometheus.Counter(
            "batuta_cost_usd", "What requests cost, by backend.", ("backend",), registry=registry
        )
        self._failovers = prometheus.Counter(
            "batuta_failovers", "Answers that another backend had to go on with.", ("backend",), registry=registry
        )
        self._broken = prometheus.Counter(
            "batuta_broken_streams", "Streams that ended with an error event.", registry=registry
        )
        self._left = prometheus.Counter(
            "batuta_clients_left", "Clients that left before their answer was complete.", registry=registry
        )
        self._in_flight = self._gauge("batuta_in_flight", "Requests under way by backend.", "livesum", "backend")
        self._depth = self._gauge("batuta_queue_depth", "Requests at a backend.", "livemax", "backend")
        self._budget = self._gauge(
            "batuta_budget_usd", "The daily budget: limit, spent and reserved.", "livemostrecent", "part"
        )
        self._children: dict[tuple[str, int], prometheus.Counter] = {}
        self._timers: dict[str, prometheus.Histogram] = {}

    def _gauge(self, name: str, words: str, mode: str, label: str) -> prometheus.Gauge:
        return prometheus.Gauge(name, words, (label,), registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request has been answered."""
        child = self._children.get((route, status))
        if child is None:
            child = self._children[route, status] = self._requests.labels(route, str(status))
            self._timers[route] = self._seconds.labels(route)
        child.inc()
        self._timers[route].observe(seconds)

    def first_piece(self, seconds: float) -> None:
        """An answer has begun."""
        self._first.observe(seconds)

    def answer(self, summary: Summary) -> None:
        """An answer has ended."""
        self._tokens.labels(summary.backend, "input").inc(summary.input_tokens)
        self._tokens.labels(summary.backend, "output").inc(summary.output_tokens)
        for leg in summary.legs:
            if leg.cost:
                self._cost.labels(leg.backend).inc(leg.cost / NANO)
            if leg.failed is not None:
                self._failovers.labels(leg.backend).inc()

    def broken(self) -> None:
        """A stream could not be completed."""
        self._broken.inc()

    def left(self) -> None:
        """A client has left."""
        self._left.inc()

    def refresh(self, gauges: Gauges) -> None:
        """Take over the state of things."""
        for backend, depth in gauges.queue_depth.items():
            self._depth.labels(backend).set(depth)
        budget = gauges.budget
        for part, nano in (("limit", budget.daily_budget), ("spent", budget.spent), ("reserved", budget.reserved)):
            self._budget.labels(part).set(nano / NANO)

    def under_way(self, change: int, backend: str) -> None:
        """A request began (1) or ended (-1) at a backend."""
        self._in_flight.labels(backend).inc(change)

    def text(self) -> bytes:
        """All of it, those of other workers included."""
        registry = self.registry
        if os.environ.get(METRICS_DIRECTORY):
            registry = prometheus.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return prometheus.generate_latest(registry)

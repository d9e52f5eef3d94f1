"""`/metrics` for Prometheus: queues, the outcomes and troubles of builds, and the server's own requests.

Counters count from the start of this server; each server of a farm counts the same builds.
"""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from farm.errors import FarmError
from farm.model.figures import QueueFigures
from farm.service.service import FarmService

#: Clocks of processes that end builds may be so far apart.
_SETTLED = timedelta(seconds=2)
_STEP_BUCKETS = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 43_200)
_HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30)
_QUEUE_GAUGES = (
    ("farm_queue_ready_steps", "Steps that wait in the queue.", "ready"),
    ("farm_queue_busy_steps", "Steps that workers of the queue have.", "busy"),
    ("farm_queue_slots", "Slots of the queue's workers that get work, as the scheduler saw them.", "slots"),
    ("farm_queue_oldest_wait_seconds", "How long the queue's oldest ready step has been ready.", "oldest_wait_s"),
)


class Metrics:
    """The figures of one server. Safe to use from several threads."""

    def __init__(self, service: FarmService) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._seen_until = datetime.now(UTC)
        self._registry = registry = CollectorRegistry()
        registry.register(_Queues(service))
        self._builds = Counter("farm_builds_finished", "Builds that ended.", ("outcome",), registry=registry)
        self._retries = Counter(
            "farm_step_retries", "Attempts that ended in trouble of the farm.", ("step",), registry=registry
        )
        self._losses = Counter(
            "farm_leases_lost", "Workers that were lost while they ran a step.", ("step",), registry=registry
        )
        self._hand_backs = Counter(
            "farm_steps_handed_back", "Steps that workers handed back.", ("step",), registry=registry
        )
        self._steps = Histogram(
            "farm_step_seconds", "From an attempt's start to its end.", ("step", "arch"), buckets=_STEP_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self._lag = Histogram(
            "farm_publish_lag_seconds", "From when packages could be published until they were.",
            buckets=_STEP_BUCKETS, registry=registry,
        )  # fmt: skip
        self.http = Histogram(
            "farm_http_request_seconds", "From a request until its answer began.", ("method", "route", "status"),
            buckets=_HTTP_BUCKETS, registry=registry,
        )  # fmt: skip

    def text(self) -> bytes:
        """All figures in Prometheus' text form. Raises FarmNotRunning."""
        with self._lock:
            self._count_ended()
            return generate_latest(self._registry)

    def _count_ended(self) -> None:
        until = datetime.now(UTC) - _SETTLED
        if until <= self._seen_until:
            return
        found = self._service.ended_work(self._seen_until, until)
        self._seen_until = until
        for outcome, count in found.outcomes.items():
            self._builds.labels(outcome).inc(count)
        for one in found.troubles:
            self._retries.labels(one.kind).inc(one.retries)
            self._losses.labels(one.kind).inc(one.losses)
            self._hand_backs.labels(one.kind).inc(one.hand_backs)
        for attempt in found.attempts:
            if attempt.ran_s is not None:
                self._steps.labels(attempt.kind, attempt.arch).observe(attempt.ran_s)
                if attempt.is_publication:
                    self._lag.observe(attempt.ran_s + (attempt.waited_s or 0.0))


class _Queues(Collector):
    """Asks when Prometheus does."""

    def __init__(self, service: FarmService) -> None:
        self._service = service

    def describe(self) -> Iterator[GaugeMetricFamily]:
        for name, words, _ in _QUEUE_GAUGES:
            yield GaugeMetricFamily(name, words, labels=("queue", "arch"))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        found: tuple[QueueFigures, ...] = self._service.queue_figures()
        for name, words, value in _QUEUE_GAUGES:
            family = GaugeMetricFamily(name, words, labels=("queue", "arch"))
            for one in found:
                family.add_metric((one.queue, one.arch or ""), float(getattr(one, value)))
            yield family


Figures = NamedDependency[Metrics]


@get("/metrics", sync_to_thread=True, media_type="text/plain", tags=["health"])
def metrics(figures: Figures) -> Response[bytes]:
    """The figures of the farm and of this server for Prometheus."""
    return Response(figures.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class TimedRequests:
    """Measures each request that has a route, also one that is refused."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._http = metrics.http

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began_at = time.monotonic()
        is_counted = False

        def count(status: int) -> None:
            nonlocal is_counted
            if not is_counted:
                is_counted = True
                route = str(scope.get("path_template") or "")
                took_s = time.monotonic() - began_at
                self._http.labels(str(scope.get("method")), route, str(status)).observe(took_s)

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_and_count)
        except FarmError as error:
            count(error.http_status)
            raise
        except HTTPException as error:
            count(error.status_code)
            raise
        except Exception:
            count(500)
            raise

"""/metrics for Prometheus: requests as all API processes counted them, and the rest as the database has it.

A request costs one observation. Everything else is read when somebody asks, and kept for some seconds.
"""

import hmac
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.core import broker
from api.core.throttled import throttled
from models.core.session import transact
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from settings import LOOPBACK, settings
from version import VERSION, code_version

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KEPT_SECONDS = 5.0
BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
GAUGES: list[Callable[[Session, datetime], Iterable[Metric]]] = []
"""Readers of gauges from the database. Filled where the program is put together (api/app.py)."""

_of_this_process = CollectorRegistry()
_requests = Histogram(
    "kairos_request_seconds",
    "Time that requests took, by the template of their route and by status.",
    ("route", "status"),
    buckets=BUCKETS,
    registry=_of_this_process,
)


_series = lru_cache(maxsize=4096)(_requests.labels)  # by itself the library takes a lock at each call


def observe(route: str | None, status: int, seconds: float) -> None:
    """Count a request; `route` is None where no route fits."""
    _series(route or "none", status).observe(seconds)


def install(app: Flask) -> None:
    """Serve /metrics."""

    def show() -> Response:
        token, bind = settings().metrics_token, settings().api_bind
        if token:
            header = request.headers.get("Authorization", "").encode()
            if not hmac.compare_digest(header, f"Bearer {token}".encode()):
                raise Refusal(CoreFault.TOKEN_INVALID if header else CoreFault.TOKEN_MISSING)
        elif bind.rpartition(":")[0] not in LOOPBACK or settings().proxy_hops:
            # without a token nobody from another machine may ask
            raise Refusal(CoreFault.NO_ROUTE)
        registry = CollectorRegistry()
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(_OneProcess())
        registry.register(_Gauges())
        return Response(generate_latest(registry), content_type=CONTENT_TYPE)

    app.add_url_rule("/metrics", "metrics", show)


class _OneProcess(Collector):
    """The requests of this process, where it is the only one."""

    def collect(self) -> Iterable[Metric]:
        return _of_this_process.collect()


class _Gauges(Collector):
    """The gauges, read by one thread at a time and at most every few seconds."""

    def collect(self) -> Iterable[Metric]:
        return _gauges.value()


def gauge(name: str, about: str, labels: tuple[str, ...], values: Iterable[tuple[object, ...]]) -> Metric:
    """Make a gauge of rows of label values, each with its number last; rows without a number are left out."""
    family = GaugeMetricFamily(f"kairos_{name}", about, labels=labels)
    for *texts, number in values:
        if isinstance(number, int | float):
            family.add_metric([str(text) for text in texts], float(number))
    return family


@throttled(KEPT_SECONDS)
def _gauges() -> list[Metric]:
    """Read every gauge; those of the database are left out while it is away."""
    metrics = [gauge("info", "What runs.", ("version", "code_version"), [(VERSION, code_version(), 1)])]
    lengths = broker.lengths()
    metrics.append(gauge("broker_up", "Whether the broker answers.", (), [(lengths is not None,)]))
    if lengths is not None:
        metrics.append(gauge("queue_messages", "Messages in the broker.", ("queue",), lengths.items()))
    try:
        now = datetime.now(UTC)
        rows = transact(lambda session: [metric for read in GAUGES for metric in read(session, now)])
    except (SQLAlchemyError, OSError):
        rows = []
    metrics.append(gauge("database_up", "Whether the database answers.", (), [(bool(rows),)]))
    return metrics + rows


def forget() -> None:
    """Forget the gauges of another database."""
    _gauges.forget()

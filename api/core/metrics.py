"""/metrics for Prometheus: requests as all API processes counted them, and the rest as the database has it.

A request costs one observation. Everything else is read when somebody asks, and kept for some seconds.
"""

import hmac
import os
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.core import broker
from models.core import heartbeats
from models.core.session import transact
from models.oversight import gauges
from models.trial import circuits
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from settings import LOOPBACK, settings
from version import VERSION, code_version

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KEPT_SECONDS = 5.0
DAY = timedelta(days=1)
BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
STATES = {circuits.CLOSED: 0.0, circuits.HALF_OPEN: 0.5, circuits.OPEN: 1.0}

_of_this_process = CollectorRegistry()
_requests = Histogram(
    "kairos_request_seconds",
    "Time that requests took, by the template of their route and by status.",
    ("route", "status"),
    buckets=BUCKETS,
    registry=_of_this_process,
)


@lru_cache(maxsize=4096)
def _series(route: str, status: int) -> Histogram:
    return _requests.labels(route, str(status))


def observe(route: str | None, status: int, seconds: float) -> None:
    """Count a request; `route` is None where no route fits."""
    _series(route or "none", status).observe(seconds)


def install(app: Flask) -> None:
    """Serve /metrics."""
    app.add_url_rule("/metrics", "metrics", _metrics)


def _metrics() -> Response:
    _admit()
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(_OneProcess())
    registry.register(_kept)
    return Response(generate_latest(registry), content_type=CONTENT_TYPE)


def _admit() -> None:
    """Let in who has the token. Without one, only where nobody from elsewhere can ask. Raises Refusal."""
    told = settings()
    if told.metrics_token:
        given = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {told.metrics_token}".encode()):
            raise Refusal(CoreFault.TOKEN_INVALID if given else CoreFault.TOKEN_MISSING)
    elif told.api_bind.rpartition(":")[0] not in LOOPBACK or told.proxy_hops:
        raise Refusal(CoreFault.NO_ROUTE)


class _OneProcess(Collector):
    """The requests of this process, where it is the only one."""

    def collect(self) -> Iterable[Metric]:
        return _of_this_process.collect()


class _Kept(Collector):
    """What database and broker say, asked by one thread at a time and at most every few seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Ask again at the next call."""
        self._asked_at = -KEPT_SECONDS
        self._found: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            if time.monotonic() - self._asked_at >= KEPT_SECONDS:
                self._found = list(_asked())
                self._asked_at = time.monotonic()
            return self._found


_kept = _Kept()


def forget() -> None:
    """Drop what is kept of another database."""
    _kept.forget()


def _gauge(name: str, told: str, labels: tuple[str, ...], values: Iterable[tuple[object, ...]]) -> Metric:
    """A gauge from rows of label values, each with its number last; rows without a number are left out."""
    gauge = GaugeMetricFamily(f"kairos_{name}", told, labels=labels)
    for *texts, number in values:
        if isinstance(number, int | float):
            gauge.add_metric([str(one) for one in texts], float(number))
    return gauge


def _asked() -> Iterator[Metric]:
    now = datetime.now(UTC)
    yield _gauge("info", "What runs.", ("version", "code_version"), [(VERSION, code_version(), 1)])
    lengths = broker.lengths()
    yield _gauge("broker_up", "Whether the broker answers.", (), [(lengths is not None,)])
    if lengths is not None:
        yield _gauge("queue_messages", "Messages in the broker.", ("queue",), lengths.items())
    try:
        found = transact(
            lambda session: [*_work(session, now), *_learning(session, now), *_ops(session, now)]
        )
    except (SQLAlchemyError, OSError):
        found = []
    yield _gauge("database_up", "Whether the database answers.", (), [(bool(found),)])
    yield from found


def _work(session: Session, now: datetime) -> Iterator[Metric]:
    waiting = gauges.waiting(session, now)
    ages = [(one.kind, (now - one.oldest).total_seconds()) for one in waiting]
    yield _gauge("jobs", "Jobs by state.", ("study", "state"), gauges.jobs(session))
    yield _gauge(
        "jobs_due", "Queued jobs that are due.", ("kind",), [(one.kind, one.number) for one in waiting]
    )
    yield _gauge("jobs_due_oldest_seconds", "How long the oldest due job has waited.", ("kind",), ages)
    yield _gauge("windows", "Windows by state.", ("study", "state"), gauges.windows(session))
    told = "Windows whose survey data could not be had, by code."
    yield _gauge("ingest_failures", told, ("study", "code"), gauges.failures(session))
    told = "Ingests that wait for another try, by the code of the one before."
    yield _gauge("ingest_retries", told, ("study", "code"), gauges.retries(session))
    open_ones = [(study, STATES[state]) for study, state in gauges.circuits(session)]
    told = "Circuit of the study's back end: 0 closed, 0.5 half open, 1 open."
    yield _gauge("circuit_open", told, ("study",), open_ones)


def _learning(session: Session, now: datetime) -> Iterator[Metric]:
    serving = gauges.serving(session)
    ages = [(one.study_id, (now - one.created_at).total_seconds()) for one in serving]
    yield _gauge("policy_age_seconds", "Age of the serving policy.", ("study",), ages)
    rows = [(one.study_id, one.rows) for one in serving]
    yield _gauge("policy_rows", "Learning rows in the serving policy.", ("study",), rows)
    took = [(one.study_id, one.fit_seconds) for one in serving]
    yield _gauge("fit_seconds", "How long the fit of the serving policy took.", ("study",), took)
    last = [(one.study_id, one.state, one.seconds) for one in gauges.refits(session)]
    told = "How long the last refit took from claim to end, done or failed."
    yield _gauge("refit_seconds", told, ("study", "state"), last)
    evidence = [(one.study_id, one.log_evidence) for one in serving]
    yield _gauge("fit_log_evidence", "Log evidence of the serving policy.", ("study",), evidence)
    counted = gauges.decisions(session, now - DAY)
    told = "Decisions of the last day, by fallback level (F0: the active policy)."
    yield _gauge("decisions_day", told, ("study", "level"), counted)
    yield _gauge(
        "fallback_share", "Share of the last day's decisions that fell back.", ("study",), _shares(counted)
    )


def _shares(counted: Iterable[tuple[int, str, int]]) -> Iterator[tuple[int, float]]:
    totals: dict[int, int] = {}
    fallen: dict[int, int] = {}
    for study, level, number in counted:
        totals[study] = totals.get(study, 0) + number
        fallen[study] = fallen.get(study, 0) + (number if level != "F0" else 0)
    return ((study, fallen[study] / totals[study]) for study in totals)


def _ops(session: Session, now: datetime) -> Iterator[Metric]:
    found = [
        ("all" if study is None else study, kind, level, 1)
        for study, kind, level in gauges.incidents(session)
    ]
    yield _gauge("incident_open", "1 for every open incident.", ("study", "kind", "level"), found)
    told = "Notifications by channel and state."
    yield _gauge("notifications", told, ("channel", "state"), gauges.notifications(session))
    told = "Notifications that were given up within the last day."
    yield _gauge("notifications_given_up_day", told, ("channel",), gauges.given_up(session, now - DAY))
    ages = [(name, (now - at).total_seconds()) for name, at in heartbeats.everyone(session).items()]
    yield _gauge("heartbeat_age_seconds", "Since the last sign of life of beat and workers.", ("part",), ages)

"""The gauges of /metrics that are read from the database; READERS holds their readers."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from prometheus_client.core import Metric
from sqlalchemy.orm import Session

from api.core.metrics import gauge
from models.core import heartbeats
from models.oversight import gauges
from models.trial import circuits

DAY = timedelta(days=1)
STATES = {circuits.CLOSED: 0.0, circuits.HALF_OPEN: 0.5, circuits.OPEN: 1.0}


def of_work(session: Session, now: datetime) -> Iterator[Metric]:
    """Yield the gauges of jobs, windows and the circuits of back ends."""
    waiting = gauges.waiting(session, now)
    ages = [(row.kind, (now - row.oldest).total_seconds()) for row in waiting]
    yield gauge("jobs", "Jobs by state.", ("study", "state"), gauges.jobs(session))
    yield gauge(
        "jobs_due", "Queued jobs that are due.", ("kind",), [(row.kind, row.number) for row in waiting]
    )
    yield gauge("jobs_due_oldest_seconds", "How long the oldest due job has waited.", ("kind",), ages)
    yield gauge("windows", "Windows by state.", ("study", "state"), gauges.windows(session))
    yield gauge(
        "ingest_failures",
        "Windows whose survey data could not be had, by code.",
        ("study", "code"),
        gauges.failures(session),
    )
    yield gauge(
        "ingest_retries",
        "Ingests that wait for another try, by the code of the one before.",
        ("study", "code"),
        gauges.retries(session),
    )
    states = [(study, STATES[state]) for study, state in gauges.circuits(session)]
    yield gauge(
        "circuit_open",
        "Circuit of the study's back end: 0 closed, 0.5 half open, 1 open.",
        ("study",),
        states,
    )


def of_learning(session: Session, now: datetime) -> Iterator[Metric]:
    """Yield the gauges of serving policies, their fits and the decisions made by them."""
    serving = gauges.serving(session)
    ages = [(row.study_id, (now - row.created_at).total_seconds()) for row in serving]
    yield gauge("policy_age_seconds", "Age of the serving policy.", ("study",), ages)
    rows = [(row.study_id, row.rows) for row in serving]
    yield gauge("policy_rows", "Learning rows in the serving policy.", ("study",), rows)
    took = [(row.study_id, row.fit_seconds) for row in serving]
    yield gauge("fit_seconds", "How long the fit of the serving policy took.", ("study",), took)
    last = [(row.study_id, row.state, row.seconds) for row in gauges.refits(session)]
    yield gauge(
        "refit_seconds",
        "How long the last refit took from claim to end, done or failed.",
        ("study", "state"),
        last,
    )
    evidence = [(row.study_id, row.log_evidence) for row in serving]
    yield gauge("fit_log_evidence", "Log evidence of the serving policy.", ("study",), evidence)
    counts = gauges.decisions(session, now - DAY)
    yield gauge(
        "decisions_day",
        "Decisions of the last day, by fallback level (F0: the active policy).",
        ("study", "level"),
        counts,
    )
    totals, fallbacks = Counter[int](), Counter[int]()
    for study, level, number in counts:
        totals[study] += number
        fallbacks[study] += number if level != "F0" else 0
    shares = [(study, fallbacks[study] / total) for study, total in totals.items()]
    yield gauge("fallback_share", "Share of the last day's decisions that fell back.", ("study",), shares)


def of_operations(session: Session, now: datetime) -> Iterator[Metric]:
    """Yield the gauges of incidents, notifications and signs of life."""
    open_incidents = [
        ("all" if study is None else study, kind, level, 1)
        for study, kind, level in gauges.incidents(session)
    ]
    yield gauge("incident_open", "1 for every open incident.", ("study", "kind", "level"), open_incidents)
    yield gauge(
        "notifications",
        "Notifications by channel and state.",
        ("channel", "state"),
        gauges.notifications(session),
    )
    yield gauge(
        "notifications_given_up_day",
        "Notifications that were given up within the last day.",
        ("channel",),
        gauges.given_up(session, now - DAY),
    )
    ages = [(name, (now - at).total_seconds()) for name, at in heartbeats.everyone(session).items()]
    yield gauge("heartbeat_age_seconds", "Since the last sign of life of beat and workers.", ("part",), ages)


READERS = (of_work, of_learning, of_operations)

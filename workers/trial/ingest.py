"""Ingest: the survey data of one window is fetched from the study's back end and stored."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from algorithm.core.backoff import LADDERS, backoff
from models.core import jobs
from models.core.encryption import Unreadable, decrypt
from models.core.jobs import OWN_FAULT, Job
from models.core.session import transact, transact_at
from models.trial import circuits, refits, windows
from models.trial.refits import Requested
from models.trial.windows import Source, Target
from services.trial import protocols
from settings import settings
from workers.core.celery_app import log, send
from workers.core.claims import guarded
from workers.trial import ema_client, ema_reception
from workers.trial.ema_client import BackEndFailed, Query


class Claimed(NamedTuple):
    """A claimed ingest, with the source of its window's data and the target that they are stored in.

    source and target are as they were when the job was claimed. probes: True where the circuit is half open
    and other ingests wait for what the back end answers to this one.
    """

    job: Job
    source: Source
    target: Target
    probes: bool = False


def ask_back_end(source: Source) -> list[dict[str, Any]] | None:
    """Ask the study's back end for the survey data of a window. Raises BackEndFailed, Unreadable."""
    if source.query_start is None or source.query_end is None:
        raise AssertionError("a window with an ingest job has a query")
    token = None if source.token is None else decrypt(bytes(source.token)).decode()
    query = Query(source.url, token, source.user_id, source.query_start, source.query_end)
    return ema_client.survey_data(query)


SOURCES: list[Callable[[Source], list[dict[str, Any]] | None]] = [ask_back_end]
"""The places that survey data come from, asked in this order until one does not answer None.

An area that holds survey data itself puts its own place before the back end, in workers/app.py: a lower area
does not ask a higher one.
"""


def run(job_id: int) -> None:
    """Fetch and store the survey data of one window.

    1. Claim the job; the same statement reads the source and the target.
    2. If the back end failed lately, ask the study's circuit; while it is open, the job is given back.
    3. Ask the first of SOURCES that has the study's data, with no transaction open.
    4. Store the reply, settle the window and request a refit, in one transaction. Where no reply came, note
       that for the circuit and try again later, until the window counts as failed.
    5. Send the id of the requested refit.
    """
    claim = transact_at("ONE CLAIM", windows.claim, job_id, datetime.now(UTC))
    if claim is None:
        return
    claimed = Claimed(*claim)

    def work() -> None:
        admitted: Claimed | None = claimed
        if claimed.source.failures:
            admitted = transact(admit, claimed, datetime.now(UTC))
        if admitted is not None:
            fetch(admitted)

    guarded(claimed.job, work)


def admit(session: Session, claimed: Claimed, now: datetime) -> Claimed | None:
    """Ask the study's circuit whether this ingest may go on; if not, give its job back and return None."""
    circuit = circuits.of_study(session, claimed.job.study_id)
    until = circuits.wait_until(session, circuit, now)
    if until is not None:
        run_after = until + _random_delay()
        jobs.release(session, claimed.job, run_after, ema_client.UNREACHABLE, circuits.REASON)
        return None
    return claimed._replace(probes=circuit is not None and circuit.state == circuits.HALF_OPEN)


def fetch(claimed: Claimed) -> None:
    """Ask the back end, store the reply and send the refit: steps 3 to 5 of `run`."""
    try:
        replies = (ask(claimed.source) for ask in SOURCES)
        reply = next(reply for reply in replies if reply is not None)
    except BackEndFailed as failure:
        transact(_try_later, claimed, failure, datetime.now(UTC))
        return
    except Unreadable:
        log.error("token unreadable", job_id=claimed.job.id)
        # until an operator has set the right key: no window fails for a wrong one
        run_after = datetime.now(UTC) + 4 * _random_delay()
        transact(jobs.release, claimed.job, run_after, OWN_FAULT, "the study's token is unreadable")
        return
    # Every ingest of a study ends at its queued refit. At READ COMMITTED they wait there for each other,
    # where at REPEATABLE READ all but one would fail and begin again.
    refit = transact_at("READ COMMITTED", _store, claimed, [claimed.target], reply)
    if refit is not None and not refit.joined:
        send(jobs.REFIT, refit.job_id)


def _store(
    session: Session, claimed: Claimed, targets: list[Target], reply: list[dict[str, Any]]
) -> Requested | None:
    """Store a reply and settle the window; return the refit that was requested, if any.

    targets: the target as it was claimed. It is taken out, so that a second run of this transaction, after a
    race with another writer, reads the target again.
    """
    job, source, now = claimed.job, claimed.source, datetime.now(UTC)
    target = targets.pop() if targets else windows.target(session, source.window_id)
    _note_answer(session, claimed, now)
    outcome = ema_reception.store(session, target, source.user_id, reply)
    if outcome.lack is not None:
        _fail(session, claimed, outcome.lack, now)
    else:
        windows.settle(session, source.window_id, windows.INGESTED, None, now)
        jobs.finish(session, job, now)
        log.info("window ingested", job_id=job.id, study_id=job.study_id)
    # a reply without an item for this window may still correct rows that a policy was learnt from
    if outcome.lack is not None and not outcome.changed:
        return None
    rule = protocols.loaded(session, target.protocol_id).refit
    if rule.nightly_only:
        return None
    pause = timedelta(minutes=rule.min_interval_minutes)
    return refits.request(session, job.study_id, now, hyperparameters=False, pause=pause)


def _try_later(session: Session, claimed: Claimed, failure: BackEndFailed, now: datetime) -> None:
    """Note a failure of the back end for its circuit, and queue the ingest again.

    It is tried soon and then after ever longer pauses, while that may help; after that on the slow schedule,
    and the window is shown as failed.
    """
    job = claimed.job
    if failure.soon:
        failures = circuits.count_failure(session, job.study_id)
        beyond = failures - LADDERS["circuit"].tries + 1
        if beyond > 0:
            pause = backoff(beyond, 4 * settings().retry_seconds, LADDERS["circuit"].longest)
            retry_at = now + timedelta(seconds=max(pause, failure.after))
            circuits.open_until(session, job.study_id, now, retry_at)
        _end_probe(session, claimed, now)
    else:
        _note_answer(session, claimed, now)  # a back end that says `fail` is alive
    if not failure.soon or job.tries >= LADDERS["back end"].tries:
        _fail(session, claimed, failure, now)
        return
    wait = backoff(job.tries, settings().retry_seconds) * random.uniform(0.75, 1.25)  # noqa: S311
    run_after = now + timedelta(seconds=max(wait, failure.after))
    jobs.postpone(session, job, run_after, failure.code, failure.reason)


def _note_answer(session: Session, claimed: Claimed, now: datetime) -> None:
    """Close the study's circuit, since its back end has answered."""
    if claimed.source.failures:
        circuits.answered(session, claimed.job.study_id)
    _end_probe(session, claimed, now)


def _end_probe(session: Session, claimed: Claimed, now: datetime) -> None:
    """Let the ingests go on that waited for this one's answer, if it was the probe of a half-open circuit."""
    if claimed.probes:
        circuits.probed(session, claimed.job.study_id, now)


def _random_delay() -> timedelta:
    """Return a short random time, so that jobs which waited for one thing do not all come back at once."""
    return timedelta(seconds=settings().retry_seconds * random.uniform(0, 2))  # noqa: S311


def _fail(session: Session, claimed: Claimed, failure: BackEndFailed, now: datetime) -> None:
    """Show the window as failed, and let the ingest be tried again on the slow schedule."""
    log.warning("window failed", job_id=claimed.job.id, study_id=claimed.job.study_id, code=failure.code)
    windows.settle(session, claimed.source.window_id, windows.FAILED, failure.code, None)
    wake_at = now + timedelta(seconds=settings().slow_retry_seconds)
    jobs.fail(session, claimed.job, now, failure.code, failure.reason, wake_at)

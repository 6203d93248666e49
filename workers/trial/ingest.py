"""Ingest: the survey data of one window, from the study's back end into the database."""

import random
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from algorithm.core.backoff import LADDERS, backoff
from algorithm.trial.protocol import Protocol
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
    """A claimed job, what its window asks for and where the answer goes, as it was known then.

    probes: others wait for what the back end answers now.
    """

    job: Job
    source: Source
    target: Target
    probes: bool = False


def run(job_id: int) -> None:
    """Claim, ask the back end with no transaction open, store, and have the study refitted."""
    now = datetime.now(UTC)
    claim = transact_at("ONE CLAIM", windows.claim, job_id, now)
    if claim is not None:
        claimed = Claimed(*claim)
        guarded(claimed.job, lambda: _ingest(claimed))


def _ingest(claimed: Claimed) -> None:
    allowed = _admitted(claimed) if claimed.source.failures else claimed
    if allowed is not None:
        _ask(allowed)


def _ask(claimed: Claimed) -> None:
    try:
        reply = ema_client.survey_data(_query(claimed.source))
    except BackEndFailed as failure:
        transact(_try_later, claimed, failure, datetime.now(UTC))
    except Unreadable:
        log.error("token unreadable", job_id=claimed.job.id)
        transact(_give_back, claimed, datetime.now(UTC))
    else:
        _keep(claimed, reply)


def _query(source: Source) -> Query:
    """Raises Unreadable where the study's token is under none of the keys."""
    if source.query_start is None or source.query_end is None:
        raise AssertionError("a window with an ingest job has a query")
    token = None if source.token is None else decrypt(bytes(source.token)).decode()
    return Query(source.url, token, source.user_id, source.query_start, source.query_end)


def _give_back(session: Session, claimed: Claimed, now: datetime) -> None:
    """Until an operator has set the right key: no window fails for a wrong one."""
    jobs.release(session, claimed.job, now + 4 * _moments(), OWN_FAULT, "the study's token is unreadable")


def _admitted(claimed: Claimed) -> Claimed | None:
    """The claim, where the study's circuit lets it ask; else the job is given back."""
    return transact(_by_circuit, claimed, datetime.now(UTC))


def _by_circuit(session: Session, claimed: Claimed, now: datetime) -> Claimed | None:
    circuit = circuits.of_study(session, claimed.job.study_id)
    until = circuits.wait_until(session, circuit, now)
    if until is not None:
        jobs.release(session, claimed.job, until + _moments(), ema_client.UNREACHABLE, circuits.REASON)
        return None
    return claimed._replace(probes=circuit is not None and circuit.state == circuits.HALF_OPEN)


def _keep(claimed: Claimed, reply: list[dict[str, Any]]) -> None:
    """Store a reply: what it goes to is read again only where somebody else wrote there meanwhile."""
    known = [claimed.target]

    def work(session: Session) -> Requested | None:
        target = known.pop() if known else windows.target(session, claimed.source.window_id)
        return _store(session, claimed, target, reply, datetime.now(UTC))

    # every ingest of a study ends at its queued refit: they wait for each other there instead of failing
    refit = transact_at("READ COMMITTED", work)
    if refit is not None and not refit.joined:
        send(jobs.REFIT, refit.job_id)


def _store(
    session: Session, claimed: Claimed, target: Target, reply: list[dict[str, Any]], now: datetime
) -> Requested | None:
    """Store all that came and settle the window; the refit asked for, None where there is none.

    A reply without an item for the window may still correct what others learnt from.
    """
    _answered(session, claimed, now)
    outcome = ema_reception.items_of(
        session, target, partial(protocols.loaded, session), claimed.source.user_id, reply
    )
    if outcome.lack is not None:
        _fail(session, claimed, outcome.lack, now)
    else:
        windows.settle(session, claimed.source.window_id, windows.INGESTED, None, now)
        jobs.finish(session, claimed.job, now)
        log.info("window ingested", job_id=claimed.job.id, study_id=claimed.job.study_id)
    if outcome.lack is not None and not outcome.changed:
        return None
    return _refit(session, claimed.job.study_id, protocols.loaded(session, target.protocol_id), now)


def _refit(session: Session, study_id: int, in_force: Protocol, now: datetime) -> Requested | None:
    """The study's next refit by its protocol; None where it learns by night alone."""
    if in_force.refit.nightly_only:
        return None
    pause = timedelta(minutes=in_force.refit.min_interval_minutes)
    return refits.request(session, study_id, now, hyperparameters=False, pause=pause)


def _try_later(session: Session, claimed: Claimed, failure: BackEndFailed, now: datetime) -> None:
    """Soon and ever later while that may help, then on the slow schedule with the window shown as failed."""
    _note(session, claimed, failure, now)
    if not failure.soon or claimed.job.tries >= LADDERS["back end"].tries:
        _fail(session, claimed, failure, now)
        return
    wait = backoff(claimed.job.tries, settings().retry_seconds) * random.uniform(0.75, 1.25)  # noqa: S311
    again = now + timedelta(seconds=max(wait, failure.after))
    jobs.postpone(session, claimed.job, again, failure.code, failure.reason)


def _note(session: Session, claimed: Claimed, failure: BackEndFailed, now: datetime) -> None:
    """Let the study's circuit know whether its back end lives: to say `fail` is an answer too."""
    if failure.soon:
        failures = circuits.count_failure(session, claimed.job.study_id)
        beyond = failures - LADDERS["circuit"].tries + 1
        if beyond > 0:
            pause = backoff(beyond, 4 * settings().retry_seconds, LADDERS["circuit"].longest)
            retry_at = now + timedelta(seconds=max(pause, failure.after))
            circuits.open_until(session, claimed.job.study_id, now, retry_at)
        _probed(session, claimed, now)
    else:
        _answered(session, claimed, now)


def _answered(session: Session, claimed: Claimed, now: datetime) -> None:
    if claimed.source.failures:
        circuits.answered(session, claimed.job.study_id)
    _probed(session, claimed, now)


def _probed(session: Session, claimed: Claimed, now: datetime) -> None:
    if claimed.probes:
        circuits.probed(session, claimed.job.study_id, now)


def _moments() -> timedelta:
    """A little time, never the same: who waited for one circuit must not all come at once."""
    return timedelta(seconds=settings().retry_seconds * random.uniform(0, 2))  # noqa: S311


def _fail(session: Session, claimed: Claimed, failure: BackEndFailed, now: datetime) -> None:
    log.warning("window failed", job_id=claimed.job.id, study_id=claimed.job.study_id, code=failure.code)
    windows.settle(session, claimed.source.window_id, windows.FAILED, failure.code, None)
    again = now + timedelta(seconds=settings().slow_retry_seconds)
    jobs.fail(session, claimed.job, now, failure.code, failure.reason, again)

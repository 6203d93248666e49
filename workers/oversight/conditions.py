"""What the watchdog looks for in a study, one condition each: what it is seen by, and how bad it is."""

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy.orm import Session

from algorithm.core.backoff import LADDERS
from algorithm.oversight import fidelity as draws
from algorithm.trial.protocol import Protocol
from models.core.studies import Study
from models.oversight import fidelity, incidents, watchdog
from models.oversight.incidents import RED, YELLOW, Condition, Kind
from models.trial import circuits
from settings import settings
from workers.oversight import fidelity as reader

DAY = timedelta(days=1)
LATE_CLOSING = timedelta(minutes=15)  # the beat closes stale windows every five
LONG_OPEN = timedelta(hours=1)
FEWEST = 20  # probabilities a day below which their share at a bound says nothing
MUCH = 5  # so many times a limit is red
BOUND_MARGIN = 0.01  # of the span between the bounds


class Look(NamedTuple):
    """A study as the watchdog finds it. decided_before: what was decided earlier is stored, if it ever is."""

    study: Study
    protocol: Protocol
    now: datetime
    decided_before: datetime


Check = Callable[[Session, Look], Condition | None]


def _hours(span: timedelta) -> float:
    return round(span / timedelta(hours=1), 2)


def no_decision(session: Session, look: Look) -> Condition | None:
    """Participants are in the trial by their dates, and none had a decision in the quiet hours."""
    quiet = max(settings().quiet_hours, 36 / look.protocol.schedule.points_per_day)
    since = look.now - timedelta(hours=quiet)
    if look.study.paused:
        return None
    expected = watchdog.expected(session, look.study.id, since, look.now)
    last = watchdog.last_decision(session, look.study.id)
    resumed = watchdog.last_resumed(session, look.study.id)
    if not expected or any(moment is not None and moment >= since for moment in (last, resumed)):
        return None
    return Condition(Kind.NO_DECISION, RED, {"participants": expected, "hours": quiet})


def window_not_ended(session: Session, look: Look) -> Condition | None:
    """The service had to close a day's windows itself (yellow), or does not even do that (red)."""
    longest = timedelta(hours=look.protocol.schedule.window_hours) + LATE_CLOSING
    open_ones = watchdog.open_windows(session, look.study.id, look.now - longest)
    closed = watchdog.closed_for_the_app(session, look.study.id, look.now - DAY)
    if not open_ones.number and not closed.number:
        return None
    level = RED if open_ones.number else YELLOW
    return Condition(
        Kind.WINDOW_NOT_ENDED, level, {"open": open_ones.number, "closed_for_the_app": closed.number}
    )


def window_not_ingested(session: Session, look: Look) -> Condition | None:
    """Survey data is awaited for too long, or could not be had and nobody has acknowledged that.

    An acknowledged incident must come to its end although windows fail anew, so that these open the next one,
    which is told.
    """
    late = timedelta(minutes=settings().ingest_late_minutes)
    waiting = watchdog.awaited(session, look.study.id, look.now - late)
    seen_to = incidents.last_acknowledged(session, look.study.id, Kind.WINDOW_NOT_INGESTED)
    failed = watchdog.failed(session, look.study.id, seen_to.acknowledged_at if seen_to else None)
    is_seen_to = seen_to is not None and seen_to.resolved_at is None
    if not waiting.number and (is_seen_to or not failed):
        return None
    age = look.now - (waiting.oldest or look.now)
    level = RED if age > MUCH * late else YELLOW
    return Condition(
        Kind.WINDOW_NOT_INGESTED,
        level,
        {"waiting": waiting.number, "failed": failed, "hours": _hours(age)},
    )


def refit_late(session: Session, look: Look) -> Condition | None:
    """Decisions that report an outcome are older than a refit may take, and none came to its end since."""
    if look.study.learning_frozen:
        return None
    late = timedelta(hours=settings().refit_late_hours)
    since = watchdog.last_fit(session, look.study.id) or look.study.created_at
    unlearnt = watchdog.pairs_since(session, look.study.id, since, look.now - late)
    if unlearnt.oldest is None:
        return None
    age = look.now - unlearnt.oldest
    level = RED if age > 2 * late else YELLOW
    return Condition(Kind.REFIT_LATE, level, {"decisions": unlearnt.number, "hours": _hours(age)})


def refit_without_rows(session: Session, look: Look) -> Condition | None:
    """Refits come to their end and decisions report outcomes, yet no learning row has come for long."""
    since = look.now - timedelta(hours=settings().refit_late_hours)
    fit = watchdog.last_fit(session, look.study.id)
    row = watchdog.last_row(session, look.study.id)
    if fit is None or fit < since or (row is not None and row >= since):
        return None
    reporting = watchdog.pairs_since(session, look.study.id, since, fit)
    if not reporting.number:
        return None
    return Condition(Kind.REFIT_WITHOUT_ROWS, YELLOW, {"decisions": reporting.number})


def queue_old(session: Session, look: Look) -> Condition | None:
    """A job is due and nobody takes it."""
    late = timedelta(minutes=settings().queue_late_minutes)
    queue = watchdog.queue(session, look.study.id, look.now)
    age = look.now - (queue.oldest or look.now)
    if age < late:
        return None
    level = RED if age > MUCH * late else YELLOW
    return Condition(Kind.QUEUE_OLD, level, {"jobs": queue.number, "hours": _hours(age)})


def circuit_open(session: Session, look: Look) -> Condition | None:
    """The study's back end failed so often that it is left in peace, and somebody waits to ask it.

    Where nobody does, no answer would ever close the circuit: the windows that failed are another incident.
    """
    circuit = circuits.of_study(session, look.study.id)
    if circuit is None or circuit.state == circuits.CLOSED:
        return None
    if not watchdog.will_ask(session, look.study.id, LADDERS["back end, slowly"].tries):
        return None
    age = look.now - (circuit.opened_at or look.now)
    level = RED if age > LONG_OPEN else YELLOW
    return Condition(Kind.CIRCUIT_OPEN, level, {"failures": circuit.failures, "hours": _hours(age)})


def fallbacks(session: Session, look: Look) -> Condition | None:
    """The active policy could not serve too many of a day's decisions, be they few.

    In a small trial a single one is too many: that is told for its day, and red where there are more.
    """
    found = watchdog.recent(session, look.study.id, look.now - DAY, 0, 1)
    condition = _share(Kind.FALLBACKS, found.fallbacks, found.decisions, settings().fallback_share)
    return condition._replace(level=YELLOW) if condition and found.fallbacks == 1 else condition


def at_bound(session: Session, look: Look) -> Condition | None:
    """Too many of a day's probabilities are as low or as high as the protocol allows."""
    allocation = look.protocol.allocation
    margin = BOUND_MARGIN * (allocation.upper - allocation.lower)
    if margin == 0 or look.protocol.probability is not None:
        return None
    found = watchdog.recent(
        session, look.study.id, look.now - DAY, allocation.lower + margin, allocation.upper - margin
    )
    if found.decisions < FEWEST:
        return None
    condition = _share(Kind.AT_BOUND, found.at_bound, found.decisions, settings().bound_share)
    return condition._replace(level=YELLOW) if condition else None


def _share(kind: Kind, some: int, of_all: int, limit: float) -> Condition | None:
    if some <= limit * of_all:
        return None
    level = RED if some > MUCH * limit * of_all else YELLOW
    return Condition(kind, level, {"decisions": some, "of": of_all, "share": round(some / of_all, 4)})


def randomisation_off(session: Session, look: Look) -> Condition | None:
    """A draw is not what its seed says, or the draws as a whole do not fit their probabilities."""
    reader.read(session, look.study.id, look.decided_before)
    state = fidelity.state(session, look.study.id)
    evidence = draws.combined(state.log_evidence, state.shares)
    if not state.mismatched and evidence < math.log(1 / settings().randomisation_alpha):
        return None
    detail = {
        "decisions": state.decisions,
        "mismatched": state.mismatched,
        "log_evidence": round(evidence, 3),
    }
    return Condition(Kind.RANDOMISATION, RED, detail)


CHECKS: Mapping[Kind, Check] = {
    Kind.NO_DECISION: no_decision,
    Kind.WINDOW_NOT_ENDED: window_not_ended,
    Kind.WINDOW_NOT_INGESTED: window_not_ingested,
    Kind.REFIT_LATE: refit_late,
    Kind.REFIT_WITHOUT_ROWS: refit_without_rows,
    Kind.QUEUE_OLD: queue_old,
    Kind.CIRCUIT_OPEN: circuit_open,
    Kind.FALLBACKS: fallbacks,
    Kind.AT_BOUND: at_bound,
    Kind.RANDOMISATION: randomisation_off,
}

"""The conditions that the watchdog looks for in a study: one check each, with the level of its incident."""

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
LATE_CLOSING = timedelta(minutes=15)  # the beat closes stale windows every five minutes
LONG_OPEN = timedelta(hours=1)  # after which an open circuit is red
FEWEST = 20  # probabilities a day below which their share at a bound says nothing
MUCH = 5  # so many times the limit is red, and not yellow
BOUND_MARGIN = 0.01  # of the span between the bounds


class Look(NamedTuple):
    """A study at the moment of a check.

    decided_before: a time; all decisions that were made earlier are stored by now, or never will be.
    """

    study: Study
    protocol: Protocol
    now: datetime
    decided_before: datetime


Check = Callable[[Session, Look], Condition | None]
"""A check of one condition: it returns the condition if it holds, and None if it does not."""


def _hours(span: timedelta) -> float:
    """Return a span of time in hours, as it is shown in an incident."""
    return round(span / timedelta(hours=1), 2)


def no_decision(session: Session, look: Look) -> Condition | None:
    """Check whether no participant had a decision in the quiet hours, although some are in the trial."""
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
    """Check whether the service had to close windows of the last day itself (yellow) or failed to (red)."""
    longest = timedelta(hours=look.protocol.schedule.window_hours) + LATE_CLOSING
    still_open = watchdog.open_windows(session, look.study.id, look.now - longest)
    closed = watchdog.closed_for_the_app(session, look.study.id, look.now - DAY)
    if not still_open.number and not closed.number:
        return None
    level = RED if still_open.number else YELLOW
    return Condition(
        Kind.WINDOW_NOT_ENDED, level, {"open": still_open.number, "closed_for_the_app": closed.number}
    )


def window_not_ingested(session: Session, look: Look) -> Condition | None:
    """Check whether survey data is awaited for too long, or has failed to come and nobody acknowledged it."""
    late = timedelta(minutes=settings().ingest_late_minutes)
    waiting = watchdog.awaited(session, look.study.id, look.now - late)
    last = incidents.last_acknowledged(session, look.study.id, Kind.WINDOW_NOT_INGESTED)
    failed = watchdog.failed(session, look.study.id, last.acknowledged_at if last else None)
    # an acknowledged incident must come to its end although windows fail anew: they open the next incident,
    # and only of a new one are people notified
    is_acknowledged = last is not None and last.resolved_at is None
    if not waiting.number and (is_acknowledged or not failed):
        return None
    age = look.now - (waiting.oldest or look.now)
    level = RED if age > MUCH * late else YELLOW
    return Condition(
        Kind.WINDOW_NOT_INGESTED,
        level,
        {"waiting": waiting.number, "failed": failed, "hours": _hours(age)},
    )


def refit_late(session: Session, look: Look) -> Condition | None:
    """Check whether decisions with an outcome wait for longer than a refit may take."""
    if look.study.learning_frozen:
        return None
    late = timedelta(hours=settings().refit_late_hours)
    since = watchdog.last_fit(session, look.study.id) or look.study.created_at
    waiting = watchdog.pairs_since(session, look.study.id, since, look.now - late)
    if waiting.oldest is None:
        return None
    age = look.now - waiting.oldest
    level = RED if age > 2 * late else YELLOW
    return Condition(Kind.REFIT_LATE, level, {"decisions": waiting.number, "hours": _hours(age)})


def refit_without_rows(session: Session, look: Look) -> Condition | None:
    """Check whether refits end and decisions have outcomes, but no learning row has come for too long."""
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
    """Check whether a job has been due for too long and no worker takes it."""
    late = timedelta(minutes=settings().queue_late_minutes)
    queue = watchdog.queue(session, look.study.id, look.now)
    age = look.now - (queue.oldest or look.now)
    if age < late:
        return None
    level = RED if age > MUCH * late else YELLOW
    return Condition(Kind.QUEUE_OLD, level, {"jobs": queue.number, "hours": _hours(age)})


def circuit_open(session: Session, look: Look) -> Condition | None:
    """Check whether the study's back end is left in peace after failures while jobs wait to ask it."""
    circuit = circuits.of_study(session, look.study.id)
    if circuit is None or circuit.state == circuits.CLOSED:
        return None
    # without a job that waits no answer would ever close the circuit; failed windows are another incident
    if not watchdog.will_ask(session, look.study.id, LADDERS["back end, slowly"].tries):
        return None
    age = look.now - (circuit.opened_at or look.now)
    level = RED if age > LONG_OPEN else YELLOW
    return Condition(Kind.CIRCUIT_OPEN, level, {"failures": circuit.failures, "hours": _hours(age)})


def fallbacks(session: Session, look: Look) -> Condition | None:
    """Check whether the active policy could not serve too large a share of the last day's decisions."""
    recent = watchdog.recent(session, look.study.id, look.now - DAY, 0, 1)
    condition = _share(Kind.FALLBACKS, recent.fallbacks, recent.decisions, settings().fallback_share)
    # in a small trial a single fallback is too large a share already: it is yellow, and two are red
    return condition._replace(level=YELLOW) if condition and recent.fallbacks == 1 else condition


def at_bound(session: Session, look: Look) -> Condition | None:
    """Check whether too many of the last day's probabilities are at a bound that the protocol sets."""
    allocation = look.protocol.allocation
    margin = BOUND_MARGIN * (allocation.upper - allocation.lower)
    if margin == 0 or look.protocol.probability is not None:
        return None
    lower, upper = allocation.lower + margin, allocation.upper - margin
    recent = watchdog.recent(session, look.study.id, look.now - DAY, lower, upper)
    if recent.decisions < FEWEST:
        return None
    condition = _share(Kind.AT_BOUND, recent.at_bound, recent.decisions, settings().bound_share)
    return condition._replace(level=YELLOW) if condition else None


def _share(kind: Kind, count: int, total: int, limit: float) -> Condition | None:
    """Return the condition that `count` of `total` decisions are more than the share `limit`."""
    if count <= limit * total:
        return None
    level = RED if count > MUCH * limit * total else YELLOW
    return Condition(kind, level, {"decisions": count, "of": total, "share": round(count / total, 4)})


def randomisation_off(session: Session, look: Look) -> Condition | None:
    """Check whether a draw does not follow from its seed, or all draws do not fit their probabilities."""
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

"""The one call that randomises, and the rules of when it may."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal, NamedTuple

from pydantic import ConfigDict, Field
from sqlalchemy.orm import Session

from algorithm.trial import draw
from algorithm.trial.decision_time import Moment, moment
from algorithm.trial.designs.design import Point as StatePoint
from algorithm.trial.envelope import forbids
from algorithm.trial.protocol import Protocol
from api.core import broker
from api.core.endpoint import Domain, Reply
from api.trial import corrections, idempotency, serving
from api.trial.corrections import Correction
from api.trial.points import Asked, DecisionPoint, Survey
from models.core import jobs
from models.core.session import transact
from models.trial import answers, decisions, participants, windows
from models.trial.decisions import Point
from models.trial.idempotency import ACTIONS, keep
from models.trial.participants import COMPLETED_AWAITING_REVIEW, REGISTERED, STARTED
from services.core import actor
from services.core.actor import Caller
from services.core.refusals import FieldError, Refusal
from services.trial.faults import TrialFault
from version import code_version

domain = Domain("actions")
deciding = partial(
    domain.operation,
    "POST",
    roles={"client", "admin"},
    faults=(
        TrialFault.ACTION_UNKNOWN,
        TrialFault.NOT_DECIDING,
        TrialFault.INDEX_PASSED,
        TrialFault.OUTSIDE_DATES,
    ),
    standing_is_read_by_view=True,
)


class Decided(Reply):
    """A decision. `action` is 1 if seed / 2^53 < act_prob, else 0, so that anybody can check the draw.

    Where a rule of the protocol's safety envelope forbids a message, `available` is false, `unavailable_rule`
    names it, and nothing was randomised: act_prob and action are 0.
    """

    model_config = ConfigDict(from_attributes=True)

    rid: int = Field(validation_alias="id")
    action: Literal[0, 1]
    seed: int
    act_prob: float
    policy_id: int | None
    decision_index: int
    act_gen_timestamp: datetime
    state: list[float] | None
    fallback_level: str
    available: bool
    unavailable_rule: str | None
    correction_stored: bool = False


class Outcome(NamedTuple):
    """What a transaction came to, the jobs it left for the workers, and what is to be kept besides."""

    decided: Decided
    jobs: list[int]
    correction: Correction | None = None


@deciding("/actions")
def decide(body: Survey, caller: Caller, key: str | None) -> Decided:
    """Decide at a participant's decision point.

    The point is randomised once. The same point asked for again gives the stored decision, whatever happened
    in between; answers that differ from the first are kept as a correction and change nothing.
    """
    missing = body.missing()
    if missing:
        raise Refusal(
            missing[0][0], errors=[FieldError(field=field, message=fault.message) for fault, field in missing]
        )
    return _decided(body, caller, key)


@deciding("/decision_points")
def decide_point(body: DecisionPoint, caller: Caller, key: str | None) -> Decided:
    """Decide at a participant's decision point, under any protocol but MiWaves.

    All is as with /actions, but for the answers: they are those that the study's protocol names.
    """
    return _decided(body, caller, key)


def _decided(body: Asked, caller: Caller, key: str | None) -> Decided:
    outcome = transact(lambda session: _decide(session, caller, body, key, datetime.now(UTC)))
    for job_id in outcome.jobs:
        broker.send(jobs.INGEST, job_id)
    if outcome.correction is not None:
        corrections.keep(caller, outcome.correction)
    return outcome.decided


def _decide(session: Session, caller: Caller, body: Asked, key: str | None, now: datetime) -> Outcome:
    if key is not None:
        actor.check_standing(session, caller)  # before what the key stands for is looked up
    asked = idempotency.index_meant(session, caller.study_id, body.user_id, ACTIONS, key, body.decision_index)
    point = _read(session, caller, body.user_id, asked)
    outcome = _settle(session, caller, point, body, asked, now)
    if key is not None:
        index = outcome.decided.decision_index
        keep(session, caller.study_id, point.participant_id, ACTIONS, key, index)
    return outcome


def _settle(
    session: Session, caller: Caller, point: Point, body: Asked, asked: int | None, now: datetime
) -> Outcome:
    """The stored decision of the point that a call means, or a new one."""
    protocol = serving.loaded(session, point.protocol_id)
    began = point.act_gen_timestamp
    if began is not None and (asked is not None or not _stale(began, protocol, now)):
        return _repeat(session, point, body)
    target = point.decision_index + (0 if began is None else 1)
    _check_phase(point)
    _check_index(point, protocol, target)
    closed: list[int] = []
    if target > point.closed_index + 1:
        closed = _move_on(session, point, protocol, target, now)
        point = _read(session, caller, body.user_id, target)
    return Outcome(_randomise(session, caller, point, protocol, body, now), closed)


def _read(session: Session, caller: Caller, user_id: str, decision_index: int | None) -> Point:
    """The point, with the messages sent where the study's protocol looks back on them.

    Whether it does is known from the call before; where that has changed, the point is read again.
    """
    read = partial(
        decisions.point, session, caller.study_id, caller.client_id, caller.jti, user_id, decision_index
    )
    with_sent = serving.looks_back(caller.study_id)
    point = read(with_sent)
    if point is None:
        actor.check_standing(session, caller)
        raise Refusal(TrialFault.ACTION_UNKNOWN)
    actor.admit(caller, point.role, point.disabled, point.revoked)
    serving.note_looking_back(caller.study_id, point.looks_back_days > 0)
    again = read(True) if point.looks_back_days > 0 and not with_sent else None
    return again or point


def _stale(began: str, protocol: Protocol, now: datetime) -> bool:
    """By the server's clock alone: the app's own may be wrong."""
    return now - datetime.fromisoformat(began) > timedelta(hours=protocol.schedule.window_hours)


def _check_phase(point: Point) -> None:
    if point.phase not in {REGISTERED, STARTED}:
        raise Refusal(TrialFault.NOT_DECIDING, f"The participant is {point.phase}: no new decisions.")
    if point.paused:
        raise Refusal(TrialFault.NOT_DECIDING, "The study is paused: no new decisions.")


def _check_index(point: Point, protocol: Protocol, target: int) -> None:
    if not point.closed_index < target <= protocol.schedule.study_length:
        raise Refusal(TrialFault.INDEX_PASSED)


def _move_on(session: Session, point: Point, protocol: Protocol, target: int, now: datetime) -> list[int]:
    """Close what is open, record what is skipped before `target`; the ingest jobs that this makes."""
    participant = participants.locked_by_id(session, point.participant_id)
    decision = decisions.at(session, participant.id, participant.decision_index + 1)
    closed = []
    if decision is not None:
        look_back = timedelta(hours=protocol.schedule.look_back_hours)
        job = windows.close(
            session, participant, windows.END_MISSING, now, decision.act_gen_timestamp, look_back
        )
        closed.append(job.id)
    windows.miss(session, participant, target - 1, now)
    return closed


def _randomise(
    session: Session,
    caller: Caller,
    point: Point,
    protocol: Protocol,
    body: Asked,
    now: datetime,
) -> Decided:
    when = _moment(point, protocol, body, now)
    given = body.given(protocol.design)
    rule = forbids(protocol.envelope, body.available is not False, now, when.local, serving.messages(point))
    reward = protocol.design.reward(given, protocol.state)
    asked = StatePoint(point.decision_index, when.evening, given, reward, None)
    served = serving.serve(session, caller.study_id, point, protocol, asked, rule is None)
    choice = served.choice
    key = serving.study_key(session, caller.study_id)
    seed = draw.seed(key, point.participant_id, point.decision_index)
    stored = {
        "id": point.new_rid,
        "study_id": caller.study_id,
        "participant_id": point.participant_id,
        "decision_index": point.decision_index,
        "protocol_id": point.protocol_id,
        "protocol_hash": protocol.digest,
        "code_version": code_version(),
        "policy_id": choice.policy_id,
        "feature_version": protocol.design.feature_version,
        "state": None if served.state is None else list(served.state),
        "advantage_mean": choice.mean,
        "advantage_variance": choice.variance,
        "act_prob": choice.probability,
        "seed": seed,
        "action": draw.action(seed, choice.probability),
        "fallback_level": choice.level,
        "available": rule is None,
        "unavailable_rule": rule,
        "answers": given,
        "reward": reward,
        "evening": when.evening,
        "decision_time": when.local.astimezone(UTC),
        "utc_offset_minutes": when.utc_offset_minutes,
        "act_gen_timestamp": now,
    }
    decisions.add(session, stored, _next_phase(point, protocol), body.timezone or point.timezone)
    _note_whereabouts(session, caller.study_id, point, body, when, now)
    return Decided.model_validate(stored)


def _moment(point: Point, protocol: Protocol, body: Asked, now: datetime) -> Moment:
    when = moment(
        body.decision_time,
        now,
        body.timezone or point.timezone,
        point.decision_index,
        protocol.schedule.points_per_day,
        point.mornings,
        point.evenings,
    )
    if not point.rl_start_date <= when.local.date().isoformat() <= point.rl_end_date:
        raise Refusal(TrialFault.OUTSIDE_DATES)
    return when


def _next_phase(point: Point, protocol: Protocol) -> str:
    is_last = point.decision_index == protocol.schedule.study_length
    return COMPLETED_AWAITING_REVIEW if is_last else STARTED


def _note_whereabouts(
    session: Session, study_id: int, point: Point, body: Asked, when: Moment, now: datetime
) -> None:
    """Keep the zone that a participant has moved to, and what the app's time disagrees with."""
    if body.timezone not in {None, point.timezone}:
        participants.enter_zone(
            session, study_id, point.participant_id, body.timezone, now, point.decision_index
        )
    whose = {"study_id": study_id, "participant_id": point.participant_id, "decision_id": point.new_rid}
    answers.disagree(session, [{**whose, **found._asdict()} for found in when.disagreements])


def _repeat(session: Session, point: Point, body: Asked) -> Outcome:
    """The stored decision, and other answers than those that it was made with."""
    first = decisions.known(session, point.participant_id, point.decision_index)
    given = body.given(serving.loaded(session, first.protocol_id).design)  # of a version before, perhaps
    differs = given != first.answers
    told = Decided.model_validate(first).model_copy(update={"correction_stored": differs})
    return Outcome(told, [], Correction(first.participant_id, first.id, given) if differs else None)

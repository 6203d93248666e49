"""Decide: the one act that randomises, and the rules of when it may.

1. The stored decision of the point is looked up before anything else: a repeat gets what it got.
2. A point that lies ahead moves the participant on: the open window is closed, skipped points are missed.
3. State, policy and probability are read, the seed is drawn, and the decision is stored.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from algorithm.trial import draw
from algorithm.trial.decision_time import Moment, moment
from algorithm.trial.designs.design import Design
from algorithm.trial.designs.design import Point as StatePoint
from algorithm.trial.envelope import Sent, forbids, local_time
from algorithm.trial.protocol import Protocol
from models.core.jobs import QueuedJob
from models.trial import answers, decisions, participants, points
from models.trial import windows as window_rows
from models.trial.decisions import Decision, DecisionRecord
from models.trial.idempotency import ACTIONS, keep
from models.trial.participants import COMPLETED_AWAITING_REVIEW, REGISTERED, STARTED
from models.trial.points import Point
from services.core import caches, callers
from services.core.callers import Caller
from services.core.refusals import Refusal
from services.trial import idempotency, protocols, rungs, studies, windows
from services.trial.corrections import Correction
from services.trial.faults import TrialFault
from version import code_version

_looks_back: dict[int, bool] = {}


class DecisionCall(NamedTuple):
    """A call for a decision.

    decision_index, decision_time, timezone: None where the caller leaves them to the service. available:
    False where the participant must not get a message now. answers: a function that returns the call's
    answers as a design reads them; it raises Refusal where they are none of that design.
    """

    user_id: str
    decision_index: int | None
    decision_time: datetime | None
    timezone: str | None
    available: bool
    answers: Callable[[Design], dict[str, Any]]


class Outcome(NamedTuple):
    """A decision, new or stored before, the jobs that were queued, and answers to be kept besides."""

    decision: Decision | DecisionRecord
    jobs: list[QueuedJob]
    correction: Correction | None = None


def decide(session: Session, caller: Caller, call: DecisionCall, key: str | None, now: datetime) -> Outcome:
    """Return the decision of the point that a call means. Raises Refusal.

    key: the call's Idempotency-Key. Several calls for one point may race: the unique key of decisions lets
    one pass, and the transactions of the others run again and find what it stored.
    """
    if key is not None:
        callers.check_standing(session, caller)  # before the key is looked up
    index = idempotency.index_meant(session, caller.study_id, call.user_id, ACTIONS, key, call.decision_index)
    point = _read(session, caller, call.user_id, index)
    outcome = _settle(session, caller, point, call, index, now)
    if key is not None:
        keep(session, caller.study_id, point.participant_id, ACTIONS, key, outcome.decision.decision_index)
    return outcome


def _read(session: Session, caller: Caller, user_id: str, decision_index: int | None) -> Point:
    """Return the point, with the messages sent where the study's protocol looks back on them. Raises Refusal.

    Each process remembers by study whether its protocol looks back; where that has changed meanwhile, the
    point is read again.
    """
    study_id, with_sent = caller.study_id, _looks_back.get(caller.study_id, True)
    place = study_id, caller.client_id, caller.jti, user_id, decision_index
    point = points.read(session, *place, with_sent)
    if point is None:
        callers.check_standing(session, caller)
        raise Refusal(TrialFault.ACTION_UNKNOWN)
    callers.admit(caller, point.role, point.disabled, point.revoked)
    looks_back = point.looks_back_days > 0
    if _looks_back.get(study_id) is not looks_back:
        caches.make_room(_looks_back)
        _looks_back[study_id] = looks_back
    if looks_back and not with_sent:
        return points.read(session, *place, True) or point
    return point


def _settle(
    session: Session, caller: Caller, point: Point, call: DecisionCall, index: int | None, now: datetime
) -> Outcome:
    """Return the stored decision of the point, or a new one. index: the decision index that the call names.

    Raises Refusal.
    """
    protocol = protocols.loaded(session, point.protocol_id)
    decided_at = point.act_gen_timestamp
    if decided_at is not None:
        # stale by the server's clock alone: the app's own may be wrong
        age = now - datetime.fromisoformat(decided_at)
        if index is not None or age <= timedelta(hours=protocol.schedule.window_hours):
            decision = decisions.existing(session, point.participant_id, point.decision_index)
            # read by the version under which the point was decided: another one may be in force by now
            item = call.answers(protocols.loaded(session, decision.protocol_id).design)
            if item == decision.answers:
                return Outcome(decision, [])
            return Outcome(decision, [], Correction(decision.participant_id, decision.id, item))
    target = point.decision_index + (0 if decided_at is None else 1)
    if point.phase not in {REGISTERED, STARTED}:
        raise Refusal(TrialFault.NOT_DECIDING, f"The participant is {point.phase}: no new decisions.")
    if point.paused:
        raise Refusal(TrialFault.NOT_DECIDING, "The study is paused: no new decisions.")
    if not point.closed_index < target <= protocol.schedule.study_length:
        raise Refusal(TrialFault.INDEX_PASSED)
    closed: list[QueuedJob] = []
    if target > point.closed_index + 1:  # the app has moved on without ending the windows before
        participant = participants.locked_by_id(session, point.participant_id)
        closed = windows.close_open(session, participant, now)
        window_rows.miss(session, participant, target - 1, now)
        point = _read(session, caller, call.user_id, target)
    return Outcome(_randomise(session, caller.study_id, point, protocol, call, now), closed)


def _randomise(
    session: Session, study_id: int, point: Point, protocol: Protocol, call: DecisionCall, now: datetime
) -> DecisionRecord:
    """Draw and store the decision of a point that has none. Raises Refusal."""
    if point.new_rid is None:
        raise AssertionError("a point without a decision comes with the number of the one to be stored")
    design = protocol.design
    when = _moment(point, protocol, call, now)
    item = call.answers(design)
    parse = datetime.fromisoformat
    sent = [Sent(parse(at), local_time(parse(time), offset).date()) for at, time, offset in point.sent or ()]
    rule = forbids(protocol.envelope, call.available, now, when.local, sent)
    reward = design.reward(item, protocol.state)
    state_point = StatePoint(point.decision_index, when.evening, item, reward, None)
    state, choice = rungs.serve(session, study_id, point, protocol, state_point, rule is None)
    seed = draw.seed(studies.key(session, study_id), point.participant_id, point.decision_index)
    record = DecisionRecord(
        id=point.new_rid,
        study_id=study_id,
        participant_id=point.participant_id,
        decision_index=point.decision_index,
        protocol_id=point.protocol_id,
        protocol_hash=protocol.digest,
        code_version=code_version(),
        policy_id=choice.policy_id,
        feature_version=design.feature_version,
        state=None if state is None else list(state),
        advantage_mean=choice.mean,
        advantage_variance=choice.variance,
        act_prob=choice.probability,
        seed=seed,
        action=draw.action(seed, choice.probability),
        fallback_level=choice.level,
        available=rule is None,
        unavailable_rule=rule,
        answers=item,
        reward=reward,
        evening=when.evening,
        decision_time=when.local.astimezone(UTC),
        utc_offset_minutes=when.utc_offset_minutes,
        act_gen_timestamp=now,
    )
    _store(session, record, point, protocol, call, when)
    return record


def _moment(point: Point, protocol: Protocol, call: DecisionCall, now: datetime) -> Moment:
    """Return the local time of a decision point. Raises Refusal outside the participant's dates."""
    when = moment(
        call.decision_time,
        now,
        call.timezone or point.timezone,
        point.decision_index,
        protocol.schedule.points_per_day,
        point.mornings,
        point.evenings,
    )
    if not point.rl_start_date <= when.local.date().isoformat() <= point.rl_end_date:
        raise Refusal(TrialFault.OUTSIDE_DATES)
    return when


def _store(
    session: Session,
    record: DecisionRecord,
    point: Point,
    protocol: Protocol,
    call: DecisionCall,
    when: Moment,
) -> None:
    """Store a decision, the zone that the participant has moved to, and discrepancies of the app's time."""
    index, zone = record.decision_index, call.timezone or point.timezone
    is_last = index == protocol.schedule.study_length
    decisions.add(session, record, COMPLETED_AWAITING_REVIEW if is_last else STARTED, zone)
    if zone != point.timezone:
        participants.enter_zone(
            session, record.study_id, record.participant_id, zone, record.act_gen_timestamp, index
        )
    keys = {"study_id": record.study_id, "participant_id": record.participant_id, "decision_id": record.id}
    answers.disagree(session, [{**keys, **disagreement._asdict()} for disagreement in when.disagreements])

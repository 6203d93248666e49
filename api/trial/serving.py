"""Which probability serves a decision point: the fallback ladder, filled from immutable rows.

Policies and protocol versions never change, so each process keeps those it has read, by their ids.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session
from structlog import get_logger

from algorithm.trial import ladder, protocol
from algorithm.trial.designs.design import Design, StateUnavailable
from algorithm.trial.designs.design import Point as StatePoint
from algorithm.trial.envelope import Sent, local_time
from algorithm.trial.ladder import Block, Choice, Level, Rung
from algorithm.trial.protocol import Protocol
from models.core import pg_arrays, studies
from models.trial import policies
from models.trial.decisions import Point
from models.trial.policies import Population

KEPT = 256
DAMAGE = (StateUnavailable, LookupError, TypeError, ValueError, ArithmeticError)
"""What the computation of a state meets in stored points that are not as they were written."""
log = get_logger()
_protocols: dict[int, Protocol] = {}
_study_keys: dict[int, bytes] = {}
_populations: dict[tuple[int, int], Population] = {}
_looking_back: dict[int, bool] = {}
_known_features: dict[tuple[int, tuple[float, ...]], NDArray[np.float64]] = {}


class Served(NamedTuple):
    """The state of a decision point (None where it could not be computed) and the choice made there."""

    state: tuple[float, ...] | None
    choice: Choice


def loaded(session: Session, protocol_id: int) -> Protocol:
    """A protocol version, ready for use."""
    known = _protocols.get(protocol_id)
    if known is None:
        version = studies.protocol_by_id(session, protocol_id)
        known = protocol.stored(version.document, version.hash)
        _make_room(_protocols)
        _protocols[protocol_id] = known
    return known


def study_key(session: Session, study_id: int) -> bytes:
    """The key of a study's draws, which never changes."""
    known = _study_keys.get(study_id)
    if known is None:
        known = bytes(studies.by_id(session, study_id).study_key)
        _make_room(_study_keys)
        _study_keys[study_id] = known
    return known


def population(session: Session, study_id: int, policy_id: int) -> Population | None:
    """The part of a policy that serves everybody, or None where there is no such policy."""
    known = _populations.get((study_id, policy_id))
    if known is None:
        known = policies.population(session, study_id, policy_id)
        if known is not None:
            _make_room(_populations)
            _populations[study_id, policy_id] = known
    return known


def looks_back(study_id: int) -> bool:
    """Whether the study's protocol looks back on messages, as far as this process knows."""
    return _looking_back.get(study_id, True)


def note_looking_back(study_id: int, is_so: bool) -> None:
    """Keep what the latest decision point of the study told."""
    if _looking_back.get(study_id) is not is_so:
        _make_room(_looking_back)
        _looking_back[study_id] = is_so


def _make_room(cache: dict[Any, Any]) -> None:
    """Other threads may do this at any moment: nobody may count on what has just been put in."""
    if len(cache) >= KEPT:
        cache.clear()


def serve(
    session: Session,
    study_id: int,
    point: Point,
    protocol: Protocol,
    asked: StatePoint,
    available: bool,
) -> Served:
    """The state of the decision point `asked` and its randomisation probability, from the first rung that
    holds.

    Where it is not `available` nothing is randomised, whatever the state.
    """
    earlier = [
        StatePoint(index, late, *_known(given, earned, told), action)
        for index, late, action, given, earned, features, told in point.earlier or ()
        if features == protocol.design.feature_version  # others are other variables
    ]
    try:
        state = protocol.design.state(asked, earlier, protocol.state)
        features = _features(point.protocol_id, protocol.design, state)
    except DAMAGE as damage:
        log.error("state unavailable", participant_id=point.participant_id, error=type(damage).__name__)
        return Served(None, ladder.UNKNOWN_STATE if available else ladder.UNAVAILABLE)
    if not available:
        return Served(state, ladder.UNAVAILABLE)
    rungs = _rungs(session, study_id, point, protocol.design.feature_version)
    choice = ladder.choose(features, rungs, protocol)
    if choice.level != "F0":
        log.error("fallback", participant_id=point.participant_id, level=choice.level)
    return Served(state, choice)


def messages(point: Point) -> list[Sent]:
    """The messages that the safety envelope looks back on."""
    return [
        Sent(datetime.fromisoformat(at), local_time(datetime.fromisoformat(when), offset).date())
        for at, when, offset in point.sent or ()
    ]


def _known(given: Any, reward: float | None, told: list[Any] | None) -> tuple[Any, float | None]:
    """Answers and reward of an earlier point, by what was told of it since: the latest reward, and the
    answers it came with where the decision was made without one."""
    if told is None:
        return given, reward
    return (told[0] if reward is None else given), told[1]


def _features(protocol_id: int, design: Design, state: tuple[float, ...]) -> NDArray[np.float64]:
    """Features by state; states repeat, most protocols have few of them."""
    known = _known_features.get((protocol_id, state))
    if known is None:
        known = design.features(state)
        if not np.isfinite(known).all():
            raise StateUnavailable("the features are not finite")
        _make_room(_known_features)
        _known_features[protocol_id, state] = known
    return known


def _rungs(session: Session, study_id: int, point: Point, features: str) -> Iterator[Rung]:
    """F0, F2 and F1 in the order in which they are tried; each is read only when the one before failed.

    A policy of other features is none.
    """
    active = population(session, study_id, point.current_policy_id)
    if active is not None and active.feature_version != features:
        active = None
    if active is not None and point.participant_id not in active.participants:
        yield Rung("F0", active.policy_id, Block(active.mean, active.covariance))
    elif active is not None:
        yield from _own("F0", active.policy_id, point.block_mean, point.block_covariance)
        yield Rung("F2", active.policy_id, Block(active.mean, active.covariance))
    yield from _previous(session, study_id, point, features)


def _previous(session: Session, study_id: int, point: Point, features: str) -> Iterator[Rung]:
    number = policies.below(session, study_id, point.current_policy_id, features)
    previous = None if number is None else population(session, study_id, number)
    if previous is None:
        return
    own = policies.block(session, study_id, previous.policy_id, point.participant_id)
    yield from _own("F1", previous.policy_id, *own)
    yield Rung("F1", previous.policy_id, Block(previous.mean, previous.covariance))


def _own(level: Level, policy_id: int, mean: str | None, covariance: str | None) -> Iterator[Rung]:
    """The rung of a participant's stored block; none where the row is missing or makes no block."""
    if mean is None or covariance is None:
        return
    try:
        means = pg_arrays.sent(mean)
        block = Block(means, pg_arrays.unpack(pg_arrays.sent(covariance), means.size))
    except ValueError:
        return
    yield Rung(level, policy_id, block)

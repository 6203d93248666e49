"""Rungs: the fallback ladder of a decision point, filled from immutable rows, and the choice made there.

Policies never change, so each process keeps the population parts that it has read, by their ids.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session
from structlog import get_logger

from algorithm.trial import ladder
from algorithm.trial.designs.design import Design, StateUnavailable
from algorithm.trial.designs.design import Point as StatePoint
from algorithm.trial.ladder import Block, Choice, Level, Rung
from algorithm.trial.protocol import Protocol
from models.core import pg_arrays
from models.trial import policies
from models.trial.points import Point
from models.trial.policies import Population
from services.core import caches

DAMAGE = (StateUnavailable, LookupError, TypeError, ValueError, ArithmeticError)
"""The errors in the computation of a state that come of stored points which are not as they were written."""
log = get_logger()
_populations: dict[tuple[int, int], Population] = {}
_features: dict[tuple[int, tuple[float, ...]], NDArray[np.float64]] = {}


class Served(NamedTuple):
    """The state of a decision point (None where it could not be computed) and the choice made there."""

    state: tuple[float, ...] | None
    choice: Choice


def serve(
    session: Session,
    study_id: int,
    point: Point,
    protocol: Protocol,
    state_point: StatePoint,
    available: bool,
) -> Served:
    """Return the state of a decision point and the choice made from the first rung that holds.

    Where the participant is not `available` nothing is randomised, whatever the state.
    """
    design = protocol.design
    earlier: list[StatePoint] = []
    for index, evening, action, answers, reward, version, report in point.earlier or ():
        if version != design.feature_version:
            continue  # points of other features have other variables
        item, outcome = answers, reward
        if report is not None:  # the latest one, [answers, reward]
            outcome = report[1]
            if reward is None:  # else the answers that came with the reward stay
                item = report[0]
        earlier.append(StatePoint(index, evening, item, outcome, action))
    try:
        state = design.state(state_point, earlier, protocol.state)
        features = _features_of(point.protocol_id, design, state)
    except DAMAGE as error:
        log.error("state unavailable", participant_id=point.participant_id, error=type(error).__name__)
        return Served(None, ladder.UNKNOWN_STATE if available else ladder.UNAVAILABLE)
    if not available:
        return Served(state, ladder.UNAVAILABLE)
    choice = ladder.choose(features, _rungs(session, study_id, point, design.feature_version), protocol)
    if choice.level != "F0":
        log.error("fallback", participant_id=point.participant_id, level=choice.level)
    return Served(state, choice)


def population(session: Session, study_id: int, policy_id: int) -> Population | None:
    """Return the part of a policy that serves everybody, or None where there is no such policy."""
    part = _populations.get((study_id, policy_id))
    if part is None:
        part = policies.population(session, study_id, policy_id)
        if part is not None:
            caches.make_room(_populations)
            _populations[study_id, policy_id] = part
    return part


def _features_of(protocol_id: int, design: Design, state: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the features of a state; each process keeps them, as most protocols have few states.

    Raises StateUnavailable.
    """
    features = _features.get((protocol_id, state))
    if features is None:
        features = design.features(state)
        if not np.isfinite(features).all():
            raise StateUnavailable("the features are not finite")
        caches.make_room(_features)
        _features[protocol_id, state] = features
    return features


def _rungs(session: Session, study_id: int, point: Point, feature_version: str) -> Iterator[Rung]:
    """Yield F0, F2 and F1 in the order in which they are tried; each is read only when the one before failed.

    A policy of other features than `feature_version` has no rung.
    """
    active = population(session, study_id, point.current_policy_id)
    if active is not None and active.feature_version == feature_version:
        if point.participant_id in active.participants:
            yield from _own("F0", active.policy_id, point.block_mean, point.block_covariance)
            yield Rung("F2", active.policy_id, Block(active.mean, active.covariance))
        else:
            yield Rung("F0", active.policy_id, Block(active.mean, active.covariance))
    number = policies.below(session, study_id, point.current_policy_id, feature_version)
    previous = None if number is None else population(session, study_id, number)
    if previous is not None:
        block = policies.block(session, study_id, previous.policy_id, point.participant_id)
        yield from _own("F1", previous.policy_id, *block)
        yield Rung("F1", previous.policy_id, Block(previous.mean, previous.covariance))


def _own(level: Level, policy_id: int, mean: str | None, covariance: str | None) -> Iterator[Rung]:
    """Yield the rung of a participant's stored block; nothing where the row is missing or makes no block."""
    if mean is None or covariance is None:
        return
    try:
        means = pg_arrays.sent(mean)
        block = Block(means, pg_arrays.unpack(pg_arrays.sent(covariance), means.size))
    except ValueError:
        return
    yield Rung(level, policy_id, block)

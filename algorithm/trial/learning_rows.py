"""Learning rows: the state, the action and the reward that belong together.

The row of decision t is (state t, act_prob t, action t, reward of the outcome of action t). Rows are joined
on the decision index, never on the position in a list: where the decision point of the outcome is missing,
there is no row."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from algorithm.core.arrays import Bools, Floats, Ints


class BadRows(ValueError):
    """Learning rows or decision points cannot be used; the message names the column."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """N learning rows. The rows of each participant are in the order of their decisions.

    `participant` (N,) codes 0 to participants - 1; `states` (N, s); `act_prob` (N,) in [0, 1]; `action`
    (N,) 0 or 1; `reward` (N,). Any numeric dtype; narrow ones save memory."""

    participant: npt.NDArray[np.integer[Any]]
    states: npt.NDArray[Any]
    act_prob: npt.NDArray[Any]
    action: npt.NDArray[Any]
    reward: npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """N decision points, any order, each (participant, index) at most once.

    `participant` (N,) codes; `index` (N,) from 1; `states` (N, s), `act_prob` (N,) and `action` (N,) have a
    meaning where `randomised` (N,) is true: the state was computed and the action drawn. `reward` (N,) is the
    reward reported at that point, NaN where none was."""

    participant: Ints
    index: Ints
    states: Floats
    act_prob: Floats
    action: Ints
    reward: Floats
    randomised: Bools


def join(points: Points, outcome_lag: int) -> Rows:
    """Return the learning rows of `points`, sorted by participant and decision index.

    Row t takes its reward from the point with index t + `outcome_lag` of the same participant, and exists
    where that point exists with a reward and point t was randomised. Raises BadRows for a decision point
    that occurs twice."""
    order = np.lexsort((points.index, points.participant))
    # one number per (participant, index); the gap keeps a participant's last point plus the lag apart from
    # the next participant's first point
    span = int(points.index.max(initial=0)) + 2
    keys = (points.participant * span + points.index)[order]
    if (np.diff(keys) == 0).any():
        raise BadRows("index: a decision point occurs twice")
    # a search finds where the outcome's point would stand; it exists if it stands there
    place = np.searchsorted(keys, keys + outcome_lag)
    has_outcome = place < len(keys)
    has_outcome[has_outcome] = keys[place[has_outcome]] == keys[has_outcome] + outcome_lag
    reward = np.full(len(keys), np.nan)
    reward[has_outcome] = points.reward[order][place[has_outcome]]
    is_row = points.randomised[order] & ~np.isnan(reward)
    rows = order[is_row]
    return Rows(
        points.participant[rows],
        points.states[rows],
        points.act_prob[rows],
        points.action[rows],
        reward[is_row],
    )


def check(rows: Rows, participants: int, variables: int) -> None:
    """Raise BadRows, naming the column, unless `rows` hold finite numbers of equal length in their
    ranges, with `variables` state variables and participant codes below `participants`."""
    count = len(rows.participant)
    for name in ("participant", "states", "act_prob", "action", "reward"):
        column = getattr(rows, name)
        shape = (count, variables) if name == "states" else (count,)
        _refuse_if(column.shape != shape, f"{name}: shape {column.shape} is not {shape}")
        _refuse_if(not np.isfinite(column).all(), f"{name}: a value is not finite")
    _refuse_if(not np.issubdtype(rows.participant.dtype, np.integer), "participant: codes must be integers")
    _refuse_if(not _between(rows.participant, 0, participants - 1), "participant: a code is out of range")
    _refuse_if(not _between(rows.act_prob, 0, 1), "act_prob: a value is outside [0, 1]")
    _refuse_if(bool(((rows.action != 0) & (rows.action != 1)).any()), "action: a value is neither 0 nor 1")


def _between(column: npt.NDArray[Any], low: float, high: float) -> bool:
    return len(column) == 0 or bool(column.min() >= low and column.max() <= high)


def _refuse_if(fault: bool, message: str) -> None:
    if fault:
        raise BadRows(message)

"""MiWaves: two messages a day at most, for adults who use cannabis and wish to cut down.

Source: Ghosh et al., MiWaves reinforcement learning algorithm, arXiv 2408.15076; reBandit, arXiv 2402.17739.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from algorithm.core.arrays import Floats, frozen
from algorithm.core.checks import Check, boolean, choice, optional, real, several
from algorithm.trial.designs.design import Answers, Point, State, StateUnavailable

_STATES = tuple((float(s1), float(s2), float(s3)) for s1, s2, s3 in product((0, 1), repeat=3))
_NUMBER = real(-sys.float_info.max, sys.float_info.max)
_CODES = np.array([4.0, 2.0, 1.0])
_TABLE = frozen([[1, a, b, c, a * b, a * c, b * c, a * b * c] for a, b, c in _STATES])


class MiWaves:
    """The MiWaves trial. Answers carry `finished_ema` and `app_use_flag` (bool), and where the survey was
    finished `activity_question_response` (bool) and `cannabis_use` (list of numbers). None stands for an
    unknown answer."""

    name = "miwaves"
    state_names = ("recent_engagement", "evening", "no_cannabis_use")
    feature_names = ("1", "S1", "S2", "S3", "S1*S2", "S1*S3", "S2*S3", "S1*S2*S3")
    feature_version = "miwaves-1"
    reward_sd = math.sqrt(1.25)
    """The standard deviation of a reward that is uniform on {0, 1, 2, 3}."""
    history = 2
    outcome_lag = 1
    answers: Mapping[str, Check] = {
        "finished_ema": boolean,
        "app_use_flag": boolean,
        "activity_question_response": optional(boolean, None),
        "cannabis_use": optional(several(_NUMBER), None),
    }
    state_checks: Mapping[str, Check] = {"cannabis_use": choice("auto", "hours", "flags")}
    defaults: Mapping[str, Any] = {
        "prior": {
            "mean": [2.12, 0.0, 0.0, -0.69, *[0.0] * 20],
            "sd": [0.78, 0.38, 0.62, 0.98, 0.16, 0.10, 0.16, 0.10]
            + [0.27, 0.33, 0.30, 0.32, 0.10, 0.10, 0.10, 0.10] * 2,
            "sigma_u": 0.01,
            "noise_variance": 0.85,
        },
        "hyperparameters": {"sigma_u0": 0.01},
        "allocation": {"lower": 0.2, "upper": 0.8, "B": 10 / 0.95, "C": 5.0},
        "state": {"cannabis_use": "auto"},
        "schedule": {
            "study_length": 60,
            "points_per_day": 2,
            "window_hours": 8.0,
            "look_back_hours": 3.0,
            "outcome_lag": outcome_lag,
        },
    }

    def reward(self, answers: Answers, parameters: Mapping[str, Any]) -> float:
        """Return the reward, 0 to 3. 3: survey finished and a suggestion thought about or used. 2: survey
        finished. 1: survey not finished, app used for more than ten seconds outside the survey. 0:
        neither."""
        if answers["finished_ema"]:
            return 3.0 if answers.get("activity_question_response") else 2.0
        return 1.0 if answers["app_use_flag"] else 0.0

    def state(self, point: Point, earlier: Sequence[Point], parameters: Mapping[str, Any]) -> State:
        """Return (S1, S2, S3), each 0 or 1. S1: the mean of the rewards that exist at this point and the two
        before it, by decision index, is at least 2. S2: evening. S3: the survey was finished and reports no
        use in the past 12 hours (unknown counts as use). Raises StateUnavailable where no answers came or no
        reward exists."""
        if point.answers is None:
            raise StateUnavailable(f"no answers at decision point {point.index}")
        points = (point, *(other for other in earlier if point.index - 2 <= other.index < point.index))
        rewards = [recent.reward for recent in points if recent.reward is not None]
        if not rewards:
            raise StateUnavailable(f"no reward at decision point {point.index} or the two before it")
        engaged = sum(rewards) >= 2 * len(rewards)  # that the mean is at least 2, without a division
        return float(engaged), float(point.evening), float(_abstinent(point.answers, parameters))

    def features(self, states: Any) -> Floats:
        """Return [1, S1, S2, S3, S1 S2, S1 S3, S2 S3, S1 S2 S3] for each state; shape (..., 3) to (..., 8).
        Raises ValueError for a state variable other than 0 and 1."""
        binary = np.asarray(states, dtype=np.float64)
        if not ((binary == 0) | (binary == 1)).all():
            raise ValueError("states: each of S1, S2, S3 must be 0 or 1")
        table: Floats = _TABLE[(binary @ _CODES).astype(np.int64)]
        return table

    def states(self) -> tuple[State, ...]:
        """Return the eight states, 000 to 111."""
        return _STATES


def _abstinent(answers: Answers, parameters: Mapping[str, Any]) -> bool:
    """Return True if the finished survey reports no use. The app writes the use as a list of the hours with
    use, or as twelve flags of 0 and 1, one for each of the past twelve hours."""
    cannabis_use = answers.get("cannabis_use")
    if not answers["finished_ema"] or cannabis_use is None:
        return False
    are_flags = len(cannabis_use) == 12 and all(value in (0, 1) for value in cannabis_use)
    encoding = parameters["cannabis_use"]
    if encoding == "hours" or (encoding == "auto" and not are_flags):
        return len(cannabis_use) == 0
    return are_flags and not any(cannabis_use)


MIWAVES = MiWaves()

"""Oralytics: prompts to brush one's teeth, at most one before each of the day's two brushing windows.

Source: Trella et al., Oralytics reinforcement learning algorithm, arXiv 2406.13127; Nahum-Shani et al.,
pilot study, doi 10.1016/j.cct.2024.107464. Two things differ from that trial: the outcome is the duration of
brushing itself, and the learner is the mixed-effects one.

The prior's baseline and noise are the design's published values: intercept 82.209 (sd 46.240) seconds,
time of day 0 (29.090), recent brushing 4.925 (30.186), and 0 (29.624) wherever that design had no data to
go by; noise variance 3396.449. Participants' deviations start at a standard deviation of 10 seconds in
each coefficient, a third of these standard deviations. B is 10 over the noise's standard deviation, the same
steepness relative to the noise as in MiWaves."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from algorithm.core.arrays import Floats
from algorithm.core.checks import Check, boolean, real
from algorithm.trial.designs.design import Answers, Point, State

LONGEST = 180.0
"""Seconds of brushing beyond which more is not better."""
_DAY = 86_400.0
_DECAY = 13 / 14
_UNKNOWN = 29.624
_NOISE = 3396.449


class Oralytics:
    """An Oralytics-like trial. Answers carry `brushing_seconds` (number) and `app_used` (bool: on that day).
    Both are recorded with the decision point itself, so there are none before its action."""

    name = "oralytics"
    state_names = ("evening", "app_used_yesterday", "recent_brushing", "recent_prompts")
    feature_names = ("1", "evening", "app_used_yesterday", "recent_brushing", "recent_prompts")
    feature_version = "oralytics-1"
    reward_sd = LONGEST / math.sqrt(12)
    """The standard deviation of a reward that is uniform on [0, 180]."""
    history = 14
    outcome_lag = 0
    answers: Mapping[str, Check] = {"brushing_seconds": real(0, _DAY), "app_used": boolean}
    state_checks: Mapping[str, Check] = {}
    defaults: Mapping[str, Any] = {
        "prior": {
            "mean": [82.209, 0.0, 0.0, 4.925, 0.0, *[0.0] * 10],
            "sd": [46.240, 29.090, _UNKNOWN, 30.186, _UNKNOWN, *[_UNKNOWN] * 10],
            "sigma_u": 100.0,
            "noise_variance": _NOISE,
        },
        "hyperparameters": {"sigma_u0": 100.0},
        "allocation": {"lower": 0.2, "upper": 0.8, "B": 10 / math.sqrt(_NOISE), "C": 5.0},
        "state": {},
        "schedule": {
            "study_length": 140,
            "points_per_day": 2,
            "window_hours": 8.0,
            "look_back_hours": 3.0,
            "outcome_lag": outcome_lag,
        },
    }

    def reward(self, answers: Answers, parameters: Mapping[str, Any]) -> float | None:
        """Return the seconds of brushing, 0 to 180; more counts as 180. None while they are not recorded."""
        seconds = answers.get("brushing_seconds")
        return None if seconds is None else min(max(float(seconds), 0.0), LONGEST)

    def state(self, point: Point, earlier: Sequence[Point], parameters: Mapping[str, Any]) -> State:
        """Return (evening, app_used_yesterday, recent_brushing, recent_prompts). The first two are 0 or 1.
        The others are exponentially weighted averages over those of the last fourteen points that exist, by
        decision index, with a decay of 13/14 a point, scaled to [-1, 1]; they are 0 where no such point
        exists."""
        recent = [other for other in earlier if point.index - self.history <= other.index < point.index]
        brushing = _average(point, recent, lambda other: other.reward)
        prompts = _average(point, recent, lambda other: other.action)
        # yesterday's points are the two before this morning's point; seen from the evening, one further back
        last = point.index - 1 - point.evening
        yesterday = [other.answers for other in recent if other.index in (last, last - 1)]
        app_used = any(answers is not None and bool(answers.get("app_used")) for answers in yesterday)
        return (
            float(point.evening),
            float(app_used),
            0.0 if brushing is None else 2 * brushing / LONGEST - 1,
            0.0 if prompts is None else 2 * prompts - 1,
        )

    def features(self, states: Any) -> Floats:
        """Return [1, the four state variables] for each state; shape (..., 4) to (..., 5)."""
        variables = np.asarray(states, dtype=np.float64)
        return np.concatenate([np.ones((*variables.shape[:-1], 1)), variables], axis=-1)

    def states(self) -> tuple[State, ...]:
        """Return the sixteen corners of the state space."""
        return tuple(product((0.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (-1.0, 1.0)))


def _average(point: Point, recent: Sequence[Point], value: Callable[[Point], float | None]) -> float | None:
    """Return the weighted average of the values that exist at recent points, None where none exists."""
    weighted = [(_DECAY ** (point.index - other.index), value(other)) for other in recent]
    present = [(weight, number) for weight, number in weighted if number is not None]
    if not present:
        return None
    return sum(weight * number for weight, number in present) / sum(weight for weight, _ in present)


ORALYTICS = Oralytics()

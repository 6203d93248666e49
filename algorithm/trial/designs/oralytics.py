"""Oralytics: prompts to brush one's teeth, at most one before each of the day's two brushing windows.

Source: Trella et al., Oralytics reinforcement learning algorithm, arXiv 2406.13127; Nahum-Shani et al.,
pilot study, doi 10.1016/j.cct.2024.107464. Here the outcome is the duration of brushing and the learner
is the mixed-effects one.

The prior's baseline and noise are the design's published values: intercept 82.209 (sd 46.240) seconds,
time of day 0 (29.090), recent brushing 4.925 (30.186), and 0 (29.624) wherever that design had no data to
go by; noise variance 3396.449. Participants' deviations start at a standard deviation of 10 seconds in
each coefficient, a third of those. B is 10 over the noise's standard deviation, the steepness relative to
the noise that MiWaves has."""

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
    """An Oralytics-like trial. Answers carry `brushing_seconds` (number) and `app_used` (bool: on that
    day), both recorded with the decision point itself: before its action there are none."""

    name = "oralytics"
    state_names = ("evening", "app_used_yesterday", "recent_brushing", "recent_prompts")
    feature_names = ("1", "evening", "app_used_yesterday", "recent_brushing", "recent_prompts")
    feature_version = "oralytics-1"
    reward_sd = LONGEST / math.sqrt(12)
    """Of a reward uniform on [0, 180]."""
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
        """Seconds of brushing, 0 to 180; more counts as 180. None while they are not recorded."""
        seconds = answers.get("brushing_seconds")
        return None if seconds is None else min(max(float(seconds), 0.0), LONGEST)

    def state(self, point: Point, earlier: Sequence[Point], parameters: Mapping[str, Any]) -> State:
        """(evening, app_used_yesterday, recent_brushing, recent_prompts): two of 0 or 1, and two
        exponentially weighted averages over those of the last fourteen points that exist, by decision
        index, with a decay of 13/14 a point, scaled to [-1, 1]; where no such point exists they are 0."""
        recent = [other for other in earlier if point.index - self.history <= other.index < point.index]
        brushing = _average(point, recent, lambda other: other.reward)
        prompts = _average(point, recent, lambda other: other.action)
        return (
            float(point.evening),
            float(_app_used_yesterday(point, recent)),
            0.0 if brushing is None else 2 * brushing / LONGEST - 1,
            0.0 if prompts is None else 2 * prompts - 1,
        )

    def features(self, states: Any) -> Floats:
        """[1, the four state variables] for each state; shape (..., 4) to (..., 5)."""
        given = np.asarray(states, dtype=np.float64)
        return np.concatenate([np.ones((*given.shape[:-1], 1)), given], axis=-1)

    def states(self) -> tuple[State, ...]:
        """The sixteen corners of the state space."""
        return tuple(product((0.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (-1.0, 1.0)))


def _average(point: Point, recent: Sequence[Point], value: Callable[[Point], float | None]) -> float | None:
    known = [(_DECAY ** (point.index - other.index), value(other)) for other in recent]
    present = [(weight, number) for weight, number in known if number is not None]
    if not present:
        return None
    return sum(weight * number for weight, number in present) / sum(weight for weight, _ in present)


def _app_used_yesterday(point: Point, recent: Sequence[Point]) -> bool:
    """Yesterday's points are the two before this morning's; an evening's are one further back."""
    last = point.index - 1 - point.evening
    yesterday = [other.answers for other in recent if other.index in (last, last - 1)]
    return any(answers is not None and bool(answers.get("app_used")) for answers in yesterday)


ORALYTICS = Oralytics()

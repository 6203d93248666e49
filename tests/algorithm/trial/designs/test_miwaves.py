"""Rewards, states and features of MiWaves, table by table."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from algorithm.trial.designs import DESIGNS
from algorithm.trial.designs.design import Point, StateUnavailable

DESIGN = DESIGNS["miwaves"]
AUTO, HOURS, FLAGS = ({"cannabis_use": name} for name in ("auto", "hours", "flags"))


def answers(
    finished: bool = True, app: bool = False, used: bool | None = None, cannabis: Any = ()
) -> dict[str, Any]:
    return {
        "finished_ema": finished,
        "app_use_flag": app,
        "activity_question_response": used,
        "cannabis_use": None if cannabis is None else list(cannabis),
    }


def point(index: int, reward: float | None = 2.0, evening: bool = False, **given: Any) -> Point:
    return Point(index, evening, answers(**given), reward, None)


@pytest.mark.parametrize(
    ("finished", "app", "used", "reward"),
    [
        (True, False, True, 3.0),
        (True, True, True, 3.0),
        (True, True, False, 2.0),
        (True, False, None, 2.0),
        (False, True, None, 1.0),
        (False, True, True, 1.0),
        (False, False, None, 0.0),
    ],
)
def test_rewards(finished: bool, app: bool, used: bool | None, reward: float) -> None:
    found = DESIGN.reward(answers(finished, app, used), AUTO)
    assert found == reward
    assert type(found) is float


@pytest.mark.parametrize(
    ("rewards", "engaged"),
    [
        ({5: 2.0}, 1.0),
        ({5: 1.0}, 0.0),
        ({5: 3.0, 4: 3.0, 3: 0.0}, 1.0),
        ({5: 3.0, 4: 2.0, 3: 0.0}, 0.0),
        ({5: 1.0, 4: 3.0}, 1.0),
        ({5: 0.0, 3: 3.0}, 0.0),
        ({5: 1.0, 2: 3.0, 1: 3.0}, 0.0),
        ({5: 1.0, 6: 3.0, 7: 3.0}, 0.0),
        ({5: None, 4: 3.0}, 1.0),
        ({5: 2.0, 4: None, 3: None}, 1.0),
    ],
)
def test_recent_engagement_is_by_decision_index(rewards: dict[int, float | None], engaged: float) -> None:
    earlier = [point(index, reward) for index, reward in rewards.items() if index != 5]
    assert DESIGN.state(point(5, rewards[5]), earlier, AUTO)[0] == engaged
    assert DESIGN.state(point(5, rewards[5]), earlier[::-1], AUTO)[0] == engaged


def test_time_of_day() -> None:
    assert DESIGN.state(point(1, evening=True), [], AUTO)[1] == 1.0
    assert DESIGN.state(point(2, evening=False), [], AUTO)[1] == 0.0


ONE_FLAG, NO_FLAG = [0] * 11 + [1], [0] * 12


@pytest.mark.parametrize(
    ("cannabis", "auto", "hours", "flags"),
    [
        ([], 1, 1, 0),
        ([3], 0, 0, 0),
        ([0], 0, 0, 0),
        ([1, 0], 0, 0, 0),
        (NO_FLAG, 1, 0, 1),
        (ONE_FLAG, 0, 0, 0),
        ([0.0] * 12, 1, 0, 1),
        (list(range(12)), 0, 0, 0),
        ([0] * 13, 0, 0, 0),
        (None, 0, 0, 0),
    ],
)
def test_cannabis_use_in_both_encodings(cannabis: Any, auto: int, hours: int, flags: int) -> None:
    for parameters, expected in ((AUTO, auto), (HOURS, hours), (FLAGS, flags)):
        assert DESIGN.state(point(1, cannabis=cannabis), [], parameters)[2] == expected


def test_unfinished_surveys_say_nothing_about_use() -> None:
    assert DESIGN.state(point(1, 0.0, finished=False, cannabis=[]), [], AUTO)[2] == 0.0


def test_a_state_needs_answers_and_a_reward() -> None:
    with pytest.raises(StateUnavailable, match="answers"):
        DESIGN.state(Point(3, False, None, None, None), [], AUTO)
    with pytest.raises(StateUnavailable, match="reward"):
        DESIGN.state(point(3, None), [], AUTO)


def test_features_of_all_states() -> None:
    states = DESIGN.states()
    assert states == tuple(product((0.0, 1.0), repeat=3))
    expected = [[1, a, b, c, a * b, a * c, b * c, a * b * c] for a, b, c in states]
    assert DESIGN.features(states).tolist() == expected
    assert DESIGN.features(states[5]).tolist() == expected[5]
    assert DESIGN.features(np.array(states, dtype=np.int8).reshape(2, 4, 3)).shape == (2, 4, 8)
    assert len(DESIGN.feature_names) == 8
    assert len(DESIGN.state_names) == 3


@pytest.mark.parametrize("wrong", [2.0, -1.0, 0.5, np.nan])
def test_only_binary_states(wrong: float) -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        DESIGN.features((0.0, wrong, 1.0))

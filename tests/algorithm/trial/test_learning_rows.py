"""Which reward belongs to which decision."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithm.trial.learning_rows import BadRows, Points, check, join
from tests.support import made_up_trials


def points(index: list[int], reward: list[float], participant: list[int] | None = None) -> Points:
    """Points whose action probability tells which they are: participant + index / 1000."""
    who = np.array(participant or [0] * len(index))
    return Points(
        participant=who,
        index=np.array(index),
        states=np.column_stack([np.array(index), who, who]).astype(np.float64),
        act_prob=who + np.array(index) / 1000,
        action=np.array(index) % 2,
        reward=np.array(reward, dtype=np.float64),
        randomised=np.ones(len(index), dtype=np.bool_),
    )


def joined(given: Points, lag: int = 1) -> list[tuple[int, int, float]]:
    """(participant, decision, reward) of each learning row."""
    rows = join(given, lag)
    which = np.rint(1000 * (rows.act_prob - rows.participant)).astype(int)
    assert (rows.states[:, 0] == which).all()
    assert (rows.action == which % 2).all()
    return list(zip(rows.participant.tolist(), which.tolist(), rows.reward.tolist(), strict=True))


def test_a_row_takes_the_reward_of_the_next_decision() -> None:
    assert joined(points([1, 2, 3], [0, 1, 2])) == [(0, 1, 1.0), (0, 2, 2.0)]
    assert joined(points([1, 2, 3], [0, 1, 2]), lag=0) == [(0, 1, 0.0), (0, 2, 1.0), (0, 3, 2.0)]


def test_a_missing_decision_removes_the_row_before_it_and_its_own() -> None:
    assert joined(points([1, 2, 4, 5], [0, 1, 3, 2])) == [(0, 1, 1.0), (0, 4, 2.0)]


def test_a_missing_outcome_removes_the_row_before_it_and_nothing_else() -> None:
    assert joined(points([1, 2, 3, 4], [0, 1, np.nan, 2])) == [(0, 1, 1.0), (0, 3, 2.0)]


def test_what_was_not_randomised_is_no_row_but_still_an_outcome() -> None:
    given = points([1, 2, 3], [0, 1, 2])
    unavailable = replace(given, randomised=np.array([True, False, True]))
    assert joined(unavailable) == [(0, 1, 1.0)]


def test_participants_do_not_run_into_each_other() -> None:
    given = points([1, 2, 1, 3, 2], [5, 6, 7, 8, 9], [0, 0, 1, 0, 1])
    assert joined(given) == [(0, 1, 6.0), (0, 2, 8.0), (1, 1, 9.0)]


def test_nothing_makes_nothing() -> None:
    assert joined(points([], [])) == []
    assert joined(points([1], [3.0])) == []


def test_a_point_twice_is_refused() -> None:
    with pytest.raises(BadRows, match="index"):
        join(points([1, 2, 2], [0, 1, 1]), 1)


@settings(max_examples=60)
@given(
    st.sets(st.tuples(st.integers(0, 4), st.integers(1, 30)), max_size=60),
    st.integers(0, 1),
)
def test_as_a_dictionary_would_join(keys: set[tuple[int, int]], lag: int) -> None:
    listed = sorted(keys, key=lambda key: hash((key, lag)))
    reward = {key: float(place) for place, key in enumerate(listed)}
    given = points([index for _, index in listed], list(reward.values()), [who for who, _ in listed])
    expected = [
        (who, index, reward[who, index + lag]) for who, index in sorted(keys) if (who, index + lag) in reward
    ]
    assert joined(given, lag) == expected


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("reward", np.nan),
        ("reward", np.inf),
        ("act_prob", np.nan),
        ("act_prob", 1.01),
        ("act_prob", -0.01),
        ("states", -np.inf),
        ("action", 2),
        ("participant", 3),
        ("participant", -1),
    ],
)
def test_bad_values_are_refused_by_name(column: str, value: float) -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(0), [5, 5, 5])
    spoilt = getattr(rows, column).copy()
    spoilt[7] = value
    check(rows, 3, 3)
    with pytest.raises(BadRows, match=column):
        check(replace(rows, **{column: spoilt}), 3, 3)


def test_bad_shapes_are_refused_by_name() -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(0), [5, 5, 5])
    for column in ("states", "act_prob", "action", "reward"):
        with pytest.raises(BadRows, match=column):
            check(replace(rows, **{column: getattr(rows, column)[:-1]}), 3, 3)
    with pytest.raises(BadRows, match="states"):
        check(rows, 3, 4)
    with pytest.raises(BadRows, match="participant"):
        check(replace(rows, participant=rows.participant.astype(float)), 3, 3)

"""Which block decides."""

from collections.abc import Iterator

import numpy as np
import pytest

from algorithm.trial import ladder
from algorithm.trial.ladder import Block, Choice, Rung, UnusableBlock
from algorithm.trial.protocol import load
from tests.support.made_up_trials import MIWAVES

FEATURES = MIWAVES.design.features((1.0, 0.0, 1.0))
GOOD = Block(np.full(8, 0.1), 0.02 * np.eye(8))


def spoilt(what: str) -> Block:
    mean, covariance = GOOD.mean.copy(), GOOD.covariance.copy()
    if what == "mean":
        mean[3] = np.nan
    elif what == "infinite":
        covariance[0, 0] = np.inf
    elif what == "asymmetric":
        covariance[0, 3] = 1e-3
    elif what == "negative":
        covariance -= 0.1 * np.eye(8)
    elif what == "overflowing":
        mean += 1e308
        covariance += 1e308
    elif what == "shape":
        covariance = covariance[:7, :7]
    return Block(mean, covariance)


SPOILT = ("mean", "infinite", "asymmetric", "negative", "overflowing", "shape")


def test_mean_variance_and_probability() -> None:
    found = ladder.randomise(FEATURES, GOOD, MIWAVES)
    assert found.mean == pytest.approx(0.4)
    assert found.variance == pytest.approx(0.08)
    assert 0.2 < found.probability < 0.8
    assert {type(value) for value in (found.mean, found.variance, found.probability)} == {float}


@pytest.mark.parametrize("what", SPOILT)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_unusable_blocks_are_refused_and_passed_over(what: str) -> None:
    with pytest.raises(UnusableBlock):
        ladder.randomise(FEATURES, spoilt(what), MIWAVES)
    rungs = [Rung("F0", 3, spoilt(what)), Rung("F2", 3, spoilt(what)), Rung("F1", 2, GOOD)]
    found = ladder.choose(FEATURES, rungs, MIWAVES)
    assert (found.level, found.policy_id) == ("F1", 2)
    assert found.probability == ladder.randomise(FEATURES, GOOD, MIWAVES).probability


def test_rounding_is_forgiven() -> None:
    singular = np.outer(FEATURES - 1, FEATURES - 1)
    singular[0, 0] = -1e-14
    singular[2, 3] += 1e-13
    found = ladder.randomise(np.eye(8)[0], Block(GOOD.mean, singular), MIWAVES)
    assert found.variance == 0.0


def test_zero_and_huge_variances_work() -> None:
    certain = ladder.randomise(FEATURES, Block(np.full(8, 9.0), np.zeros((8, 8))), MIWAVES)
    assert certain.probability == pytest.approx(0.8, abs=1e-12)
    unknown = ladder.randomise(FEATURES, Block(np.zeros(8), 1e12 * np.eye(8)), MIWAVES)
    assert unknown.probability == pytest.approx(0.5, abs=1e-6)


def test_rungs_are_read_only_when_reached() -> None:
    reached = []

    def rungs() -> Iterator[Rung]:
        for policy_id, block in ((5, spoilt("mean")), (4, GOOD), (3, GOOD)):
            reached.append(policy_id)
            yield Rung("F0" if policy_id == 5 else "F1", policy_id, block)

    assert ladder.choose(FEATURES, rungs(), MIWAVES).policy_id == 4
    assert reached == [5, 4]


def test_the_prior_decides_where_nothing_else_can() -> None:
    expected = ladder.randomise(FEATURES, ladder.prior_block(MIWAVES), MIWAVES)
    for rungs in ([], [Rung("F0", 7, spoilt("mean"))]):
        found = ladder.choose(FEATURES, rungs, MIWAVES)
        assert found == Choice("F3", 0, expected.mean, expected.variance, expected.probability)


def test_the_pooled_prior_has_no_deviations() -> None:
    pooled = load({"protocol": "miwaves", "algorithm": "pooled"})
    difference = ladder.prior_block(MIWAVES).covariance - ladder.prior_block(pooled).covariance
    np.testing.assert_allclose(difference, 0.01 * np.eye(8), atol=1e-15)


def test_a_fixed_probability_asks_no_block() -> None:
    fixed = load(
        {
            "protocol": "miwaves",
            "algorithm": "fixed_probability",
            "algorithm_parameters": {"probability": 0.3},
        }
    )
    found = ladder.choose(FEATURES, [Rung("F0", 4, spoilt("mean"))], fixed)
    assert found == Choice("F0", 4, None, None, 0.3)
    assert ladder.choose(FEATURES, [], fixed) == Choice("F3", 0, None, None, 0.3)


def test_an_unknown_state_is_even_odds_without_a_policy() -> None:
    unknown = ladder.UNKNOWN_STATE
    assert unknown == Choice("F4", None, None, None, 0.5)

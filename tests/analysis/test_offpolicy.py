"""Values of other policies against their truth in simulated trials."""

import numpy as np
import pytest

from algorithm.core.arrays import Floats, Ints
from analysis import offpolicy


def drawn(seed: int, m: int = 40, T: int = 12) -> tuple[Floats, Floats, Floats, Ints, Floats]:
    """Outcome, action, probability, participant, covariates. With one covariate x, uniform on {0, 1}, the
    outcome's mean is 1 + x + (0.6 - 0.9 x) A + a participant's own level."""
    generator = np.random.default_rng(seed)
    n = m * T
    participant = np.repeat(np.arange(m), T)
    x = (generator.random(n) < 0.5).astype(np.float64)
    probability = 0.3 + 0.4 * x
    action = (generator.random(n) < probability).astype(np.float64)
    own = generator.normal(0, 0.5, m)[participant]
    outcome = 1 + x + (0.6 - 0.9 * x) * action + own + generator.normal(0, 1, n)
    return outcome, action, probability, participant, x[:, None]


def truth(e0: float, e1: float) -> float:
    """The value of sending with probability e0 where x = 0 and e1 where x = 1."""
    return 1.5 + 0.5 * (e0 * 0.6 + e1 * -0.3)


def other(covariates: Floats, e0: float, e1: float) -> Floats:
    return np.where(covariates[:, 0] == 1, e1, e0)


@pytest.mark.parametrize(("e0", "e1"), [(0.5, 0.5), (0.8, 0.2)])
def test_intervals_cover_the_truth(e0: float, e1: float) -> None:
    trials, covered, error = 400, np.zeros(4), np.sqrt(0.95 * 0.05 / 400)
    for seed in range(trials):
        data = drawn(seed)
        found = offpolicy.value(*data[:3], other(data[4], e0, e1), *data[3:])
        aims = [truth(e0, e1)] * 3 + [truth(e0, e1) - truth(0.3, 0.7)]
        estimates = (found.ips, found.snips, found.doubly_robust, found.gain)
        covered += [e.low <= aim <= e.high for e, aim in zip(estimates, aims, strict=True)]
    assert np.abs(covered / trials - 0.95).max() < 3 * error


def test_the_policy_that_was_used_has_the_mean_outcome() -> None:
    data = drawn(1)
    found = offpolicy.value(*data[:3], data[2], *data[3:])
    assert found.ips.value == pytest.approx(data[0].mean())
    assert found.gain.value == pytest.approx(0, abs=0.05)
    assert found.effective_rows == len(data[0])


def test_normalising_and_modelling_narrow_the_interval_and_the_sample_shrinks() -> None:
    data = drawn(2, m=200)
    found = offpolicy.value(*data[:3], other(data[4], 1.0, 0.0), *data[3:])
    assert max(found.doubly_robust.error, found.snips.error) < 0.7 * found.ips.error
    assert found.effective_rows == pytest.approx(0.3 * len(data[0]), rel=0.15)
    assert found.largest_weight == pytest.approx(1 / 0.3)


def test_predictions_are_of_other_participants() -> None:
    """Another outcome of one participant leaves that participant's predictions alone."""
    outcome, action, _, participant, covariates = drawn(3)
    before = offpolicy.predictions(outcome, action, participant, covariates)
    changed = np.where(participant == 4, outcome + 100, outcome)
    after = offpolicy.predictions(changed, action, participant, covariates)
    own = participant == 4
    np.testing.assert_array_equal(before[0][own], after[0][own])
    assert (before[1][participant == 5] != after[1][participant == 5]).all()


def test_one_participant_gives_no_interval() -> None:
    data = drawn(4, m=1)
    with pytest.raises(ValueError, match="two participants"):
        offpolicy.value(*data[:3], data[2], *data[3:])

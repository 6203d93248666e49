"""The learner learns: in trials whose truth is known."""

import numpy as np
import pytest
from scipy.stats import norm

from algorithm.core.arrays import Floats
from algorithm.trial import learner
from algorithm.trial.hyperparameters import fit_hyperparameters
from algorithm.trial.posterior import Hyperparameters
from benchmarks import testbed
from tests.support import made_up_trials

MIWAVES = made_up_trials.MIWAVES
TRUE_NOISE = 1.5
FEATURES = MIWAVES.design.features(MIWAVES.design.states())


def noise_errors(m: int, repeats: int = 3) -> Floats:
    """Errors of the fitted noise variance over its Monte-Carlo standard deviation."""
    generator = np.random.default_rng(m)
    sigma_u, n = 0.01 * np.eye(24), 30
    found = [
        fit_hyperparameters(MIWAVES, made_up_trials.model_rows(generator, [n] * m, sigma_u, TRUE_NOISE)[0], m)
        for _ in range(repeats)
    ]
    noise = np.array([fit.hyperparameters.noise_variance for fit in found])
    errors: Floats = (noise - TRUE_NOISE) / (TRUE_NOISE * np.sqrt(2 / (n * m)))
    return errors


def test_the_noise_variance_moves_to_the_truth() -> None:
    start = MIWAVES.prior.noise_variance
    for m in (20, 80, 320):
        errors = noise_errors(m)
        assert np.abs(errors).max() < 4.5
        unmoved = (start - TRUE_NOISE) / (TRUE_NOISE * np.sqrt(2 / (30 * m)))
        assert np.abs(errors).max() < np.abs(unmoved) / 2


def fitted_shares(m: int) -> tuple[float, float]:
    """Fitted over true, of Sigma_u's trace and of its best observed element, the intercept's, where
    participants differ ten times as much as at the start."""
    rows, _ = made_up_trials.model_rows(np.random.default_rng(m), [60] * m, 0.1 * np.eye(24), 0.85)
    found = fit_hyperparameters(MIWAVES, rows, m).hyperparameters.sigma_u
    return float(np.trace(found)) / 2.4, float(found[0, 0]) / 0.1


def test_deviations_are_shrunk_less_as_participants_join() -> None:
    traces, intercepts = zip(*(fitted_shares(m) for m in (10, 50, 250)), strict=True)
    assert 0.1 < traces[0] < traces[1] < traces[2] < 1
    assert 0.1 < intercepts[0] < intercepts[1] < intercepts[2] < 1.2
    assert intercepts[2] > 0.5


def coverage(used_noise: float, repeats: int = 80) -> tuple[float, float]:
    """The share of 90 % credible intervals of advantages that hold the truth, and its standard error over
    trials."""
    generator = np.random.default_rng(11)
    width, held = norm.ppf(0.95), []
    sigma_u = made_up_trials.random_covariance(generator, 24, 0.03)
    for _ in range(repeats):
        rows, theta = made_up_trials.model_rows(generator, [12] * 15, sigma_u, TRUE_NOISE)
        found = learner.fit(MIWAVES, rows, 15, Hyperparameters(sigma_u, used_noise))
        sd = np.sqrt(np.einsum("sq,iqr,sr->is", FEATURES, found.V, FEATURES))
        held.append(float((np.abs((found.beta - theta[:, -8:]) @ FEATURES.T) < width * sd).mean()))
    return float(np.mean(held)), float(np.std(held, ddof=1) / np.sqrt(repeats))


def test_credible_intervals_cover_at_their_nominal_rate() -> None:
    share, error = coverage(TRUE_NOISE)
    assert error < 0.02
    assert abs(share - 0.9) < 4 * error


def test_wrong_hyperparameters_would_not() -> None:
    share, error = coverage(TRUE_NOISE / 25)
    assert share < 0.9 - 6 * error


@pytest.mark.parametrize(
    ("cell", "over_pooled"),
    [
        (testbed.Cell("minimal", 1.0), (0.13, 0.18)),
        (testbed.Cell("low", 0.5), (0.04, 0.04)),
        (testbed.Cell("high", 0.0), (-0.27, -0.17)),
    ],
)
def test_the_testbed_gives_the_reference_differences(
    cell: testbed.Cell, over_pooled: tuple[float, float]
) -> None:
    totals = np.array([testbed.trial(cell, number) for number in range(6)])
    pooled, even = testbed.gains(totals)
    assert pooled.error < 0.15
    assert over_pooled[0] - 3 * pooled.error < pooled.mean < over_pooled[1] + 3 * pooled.error
    if cell.effect == "high":
        assert 0.7 - 3 * even.error < even.mean < 1.0 + 3 * even.error
        assert even.mean > 4 * even.error

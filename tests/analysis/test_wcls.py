"""Causal excursion effects against statsmodels, and against the truth in simulated trials."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import statsmodels.api as sm  # type: ignore[import-untyped]

from algorithm.core.arrays import Bools, Floats, Ints
from analysis import wcls


class Data(NamedTuple):
    """n rows of m participants."""

    outcome: Floats
    action: Floats
    probability: Floats
    participant: Ints
    moderators: Floats
    controls: Floats
    available: Bools


def drawn(seed: int, m: int = 30, T: int = 20, effect: float = 0.4, slope: float = 0.0) -> Data:
    """A state that depends on the last action, probabilities that depend on state and past, an outcome with
    a baseline that the controls miss in part, and correlation within participants."""
    generator = np.random.default_rng(seed)
    state, last = np.zeros((m, T)), np.zeros(m)
    probability, action, outcome = np.zeros((m, T)), np.zeros((m, T)), np.zeros((m, T))
    own = generator.normal(0, 0.7, m)
    for t in range(T):
        state[:, t] = generator.random(m) < 0.3 + 0.3 * last
        probability[:, t] = 0.2 + 0.3 * state[:, t] + 0.2 * (generator.random(m) < 0.5)
        last = (generator.random(m) < probability[:, t]).astype(np.float64)
        action[:, t] = last
        baseline = own + np.sin(t) * state[:, t] - 0.3 * state[:, t]
        outcome[:, t] = baseline + action[:, t] * (effect + slope * state[:, t]) + generator.normal(0, 1, m)
    s, ones = state.ravel(), np.ones(m * T)
    return Data(
        outcome.ravel(),
        action.ravel(),
        probability.ravel(),
        np.repeat(np.arange(m), T),
        np.column_stack([ones, s]),
        np.column_stack([ones, s, np.tile(np.arange(T), m)]),
        generator.random(m * T) < 0.8,
    )


def scaled(data: Data, numerator: Floats) -> tuple[Floats, Floats, Floats, Ints]:
    """Design, outcome, weights and clusters of the available rows, made without the code under test."""
    keep = data.available
    a, p, pt = data.action[keep], data.probability[keep], numerator[keep]
    W = np.array([pt_ / p_ if a_ else (1 - pt_) / (1 - p_) for a_, p_, pt_ in zip(a, p, pt, strict=True)])
    D = np.column_stack([data.controls[keep], (a - pt)[:, None] * data.moderators[keep]])
    return D, data.outcome[keep], W, data.participant[keep]


def fitted(data: Data, numerator: float | Floats, corrected: bool = True) -> wcls.Effects:
    return wcls.fit(*data[:6], numerator, data.available, corrected)


@pytest.mark.parametrize("by_state", [False, True])
def test_estimates_and_plain_variance_are_those_of_weighted_least_squares(by_state: bool) -> None:
    data = drawn(1)
    numerator = wcls.numerator_by(data.moderators, data.probability) if by_state else np.full(600, 0.4)
    D, y, W, who = scaled(data, numerator)
    found = fitted(data, numerator if by_state else 0.4, corrected=False)
    kwds = {"groups": who, "use_correction": False}
    other = sm.WLS(y, D, weights=W).fit(cov_type="cluster", cov_kwds=kwds)
    np.testing.assert_allclose(np.r_[found.alpha, found.beta], other.params, atol=1e-8)
    np.testing.assert_allclose(found.covariance, other.cov_params(), atol=1e-8)


def test_the_corrected_variance_is_the_bias_reduced_one_of_generalised_estimating_equations() -> None:
    """Rows times the root of their weight turn weighted into plain least squares, hat matrix and all."""
    data = drawn(2)
    D, y, W, who = scaled(data, np.full(600, 0.4))
    root = np.sqrt(W)
    model = sm.GEE(root * y, root[:, None] * D, groups=who, cov_struct=sm.cov_struct.Independence())
    other = model.fit(cov_type="bias_reduced")
    found = fitted(data, 0.4)
    np.testing.assert_allclose(np.r_[found.alpha, found.beta], other.params, atol=1e-8)
    np.testing.assert_allclose(found.covariance, other.cov_params(), rtol=1e-7, atol=1e-10)


def test_the_correction_is_that_of_the_paper_with_its_large_matrices() -> None:
    data = drawn(3, m=12)
    D, y, W, who = scaled(data, np.full(240, 0.4))
    inverse = np.linalg.inv((W[:, None] * D).T @ D)
    r = y - D @ inverse @ (W[:, None] * D).T @ y
    meat = np.zeros_like(inverse)
    for i in range(12):
        Di, Wi = D[who == i], np.diag(W[who == i])
        H = Di @ inverse @ Di.T @ Wi
        u = Di.T @ Wi @ np.linalg.solve(np.eye(len(Di)) - H, r[who == i])
        meat += np.outer(u, u)
    np.testing.assert_allclose(fitted(data, 0.4).covariance, inverse @ meat @ inverse, rtol=1e-8)


def test_intervals_and_tests_refer_to_t_and_f() -> None:
    found = fitted(drawn(4), 0.4)
    assert found.freedom == 30 - 3 - 2
    one = found.coefficients()[0]
    assert (one.high - one.low) / 2 / one.error == pytest.approx(2.0595, abs=1e-4)  # t table, 25 degrees
    D = drawn(4)._replace(moderators=np.ones((600, 1)))
    alone = fitted(D, 0.4)
    assert alone.joint_p() == pytest.approx(alone.coefficients()[0].p)


def test_intervals_cover_the_truth_with_few_participants() -> None:
    """Within 2.6 Monte-Carlo errors of 95 %; uncorrected ones with a normal reference fall short."""
    hits, plain, slopes, means, trials = 0, 0, 0, [], 800
    for seed in range(trials):
        data = drawn(1000 + seed, m=15, T=10, slope=0.3)
        found = fitted(data, 0.4)
        main, slope = found.coefficients()
        hits += main.low <= 0.4 <= main.high
        slopes += slope.low <= 0.3 <= slope.high
        means.append(main.value)
        bare = fitted(data, 0.4, corrected=False).coefficients()[0]
        plain += abs(bare.value - 0.4) <= 1.96 * bare.error
    error = np.sqrt(0.95 * 0.05 / trials)
    assert abs(hits / trials - 0.95) < 2.6 * error
    assert abs(slopes / trials - 0.95) < 2.6 * error
    assert abs(np.mean(means) - 0.4) < 3 * np.std(means) / np.sqrt(trials)
    assert plain / trials < 0.95 - 2.6 * error


def test_without_the_weights_a_marginal_effect_is_wrong() -> None:
    """Sending more often in a state gives that state no more say in the effect averaged over states."""
    generator, n = np.random.default_rng(5), 20000
    state = (generator.random(n) < 0.5).astype(np.float64)
    probability = 0.1 + 0.4 * state
    action = (generator.random(n) < probability).astype(np.float64)
    outcome = state + (0.4 + 2 * state) * action + generator.normal(0, 1, n)
    participant, one = np.repeat(np.arange(200), 100), np.ones((n, 1))
    controls = np.column_stack([one, state])
    found = wcls.fit(outcome, action, probability, participant, one, controls).coefficients(0.999)[0]
    assert found.low < 0.4 + 2 * state.mean() < found.high
    D = np.column_stack([controls, action - probability])
    unweighted = wcls.weighted(D, outcome, np.ones(n), participant, True)[0][-1]
    assert unweighted > found.high + 0.2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"moderators": np.ones((600, 2))}, "redundant"),
        ({"participant": np.repeat(np.arange(5), 120)}, "no degree of freedom"),
        ({"probability": np.zeros(600)}, "between 0 and 1"),
    ],
)
def test_what_cannot_be_estimated_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fitted(drawn(6)._replace(**change), 0.4)

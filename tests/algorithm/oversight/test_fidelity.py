"""The anytime-valid test of the draws: its error by simulation, its power, and the formula it states."""

import math
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit

from algorithm.oversight.fidelity import TILTS, are_draws, combined, log_evidence, log_wealth, weight

Floats = NDArray[np.float64]
ALPHA = 0.05


def paths(act_prob: Floats, action: Floats) -> Floats:
    """log E after every decision, (runs, n), from the product as the docstring has it."""
    factors = np.exp(TILTS * action[..., None]) / (
        1 - act_prob[..., None] + act_prob[..., None] * np.exp(TILTS)
    )
    wealth = np.cumsum(np.log(factors), axis=1)
    return np.asarray(np.logaddexp.reduce(wealth, axis=2) - math.log(len(TILTS)))


def adaptive(generator: np.random.Generator, runs: int, n: int, tilt: float = 0.0) -> tuple[Floats, Floats]:
    """Probabilities that hang on the draws before them, and draws whose log odds are off by `tilt`."""
    act_prob, action = np.zeros((runs, n)), np.zeros((runs, n))
    told = np.zeros(runs)
    for t in range(n):
        act_prob[:, t] = 0.2 + 0.6 * expit(told + generator.normal(size=runs))
        action[:, t] = generator.random(runs) < expit(logit(act_prob[:, t]) + tilt)
        told = 0.9 * told + (action[:, t] - act_prob[:, t])
    return act_prob, action


def test_the_sum_over_batches_is_the_product_over_decisions() -> None:
    act_prob, action = adaptive(np.random.default_rng(1), 1, 60)
    added = log_wealth(act_prob[0, :25], action[0, :25]) + log_wealth(act_prob[0, 25:], action[0, 25:])
    assert log_evidence(added) == pytest.approx(paths(act_prob, action)[0, -1], abs=1e-10)


def test_each_step_is_fair() -> None:
    """The mean over both outcomes is what it was: the martingale itself, without simulation."""
    for p in (0.0, 0.01, 0.2, 0.5, 0.8, 1.0):
        after = [np.exp(log_wealth(np.array([p]), np.array([a]))) for a in (0.0, 1.0)]
        assert np.allclose((1 - p) * after[0] + p * after[1], 1, rtol=0, atol=1e-12)


def test_the_exact_mean_over_all_courses_of_six_draws_is_one() -> None:
    total = 0.0
    for course in product((0.0, 1.0), repeat=6):
        p = np.array([0.2 + 0.1 * sum(course[:t]) for t in range(6)])  # predictable: from earlier draws
        a = np.array(course)
        chance = float(np.prod(np.where(a == 1, p, 1 - p)))
        total += chance * math.exp(log_evidence(log_wealth(p, a)))
    assert total == pytest.approx(1, abs=1e-12)


def test_who_stops_at_the_worst_moment_is_rarely_wrong() -> None:
    runs = 2000
    worst = paths(*adaptive(np.random.default_rng(2), runs, 500)).max(axis=1)
    wrong = float((worst >= math.log(1 / ALPHA)).mean())
    assert wrong <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    assert wrong > 0.005  # and it is no test that never says anything


def test_a_plain_test_that_is_looked_at_each_time_is_often_wrong() -> None:
    """The negative control: |z| > 1.96 at any time, on the same kind of draws."""
    act_prob, action = adaptive(np.random.default_rng(2), 500, 500)
    z = np.cumsum(action - act_prob, axis=1) / np.sqrt(np.cumsum(act_prob * (1 - act_prob), axis=1))
    assert float((np.abs(z[:, 20:]) > 1.96).any(axis=1).mean()) > 0.2


@pytest.mark.parametrize(("tilt", "needed"), [(1.0, 150), (-1.0, 150), (0.4, 900), (-0.4, 900)])
def test_wrong_draws_are_found(tilt: float, needed: int) -> None:
    found = paths(*adaptive(np.random.default_rng(3), 200, needed, tilt)).max(axis=1)
    assert float((found >= math.log(1 / ALPHA)).mean()) > 0.95


def test_the_weights_of_all_policies_add_up_to_one() -> None:
    assert sum(weight(k) for k in range(100_000)) == pytest.approx(1, abs=1e-4)


def test_sets_of_decisions_are_averaged() -> None:
    evidence = np.log(np.array([8.0, 2.0]))
    assert combined(evidence, np.array([0.25, 0.5])) == pytest.approx(math.log(2 + 1 + 0.25))
    assert combined(np.array([]), np.array([])) == pytest.approx(0)
    with pytest.raises(ValueError, match="add up"):
        combined(evidence, np.array([0.6, 0.6]))


@pytest.mark.parametrize(("p", "a"), [(1.1, 1), (-0.1, 0), (0.5, 2), (float("nan"), 1)])
def test_what_is_no_draw_is_refused(p: float, a: float) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        log_wealth(np.array([p]), np.array([a]))


def test_what_can_be_a_draw_is_told_one_by_one() -> None:
    act_prob = np.array([0.0, 1.0, 0.5, 0.5, 1.5, -0.1, math.nan, math.inf])
    action = np.array([1.0, 0.0, 1.0, 2.0, 1.0, 0.0, 0.0, 1.0])
    assert are_draws(act_prob, action).tolist() == [True, True, True, False, False, False, False, False]

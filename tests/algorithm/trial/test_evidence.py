"""The evidence and its gradient against the N x N Gaussian density and against numerical derivatives."""

from collections.abc import Callable
from functools import reduce
from operator import add

import numpy as np
import pytest

from algorithm.core.arrays import Floats
from algorithm.trial import evidence
from algorithm.trial.learning_rows import Rows
from algorithm.trial.protocol import load
from algorithm.trial.sufficient_statistics import Statistics, arrange, statistics
from tests.support import dense, made_up_trials

MIWAVES = made_up_trials.MIWAVES
ORALYTICS = load({"protocol": "oralytics"})
COUNTS = [17, 0, 1, 40, 8, 3]
S2 = 0.7


def made(seed: int) -> tuple[Rows, list[Statistics], Floats]:
    """Rows, their statistics in two blocks, and a lower triangular L."""
    generator = np.random.default_rng(seed)
    rows = made_up_trials.random_rows(generator, COUNTS)
    trial = arrange(MIWAVES.design, rows, len(COUNTS))
    blocks = [statistics(trial, part) for part in np.array_split(trial.members, 2)]
    L = 0.03 * np.tril(generator.normal(size=(24, 24)), -1) + np.diag(generator.uniform(0.05, 0.3, 24))
    return rows, blocks, L


def derivative(function: Callable[[float], float], step: float) -> float:
    """Central differences of fourth order at 0."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_are_those_of_the_dense_density(seed: int) -> None:
    rows, blocks, L = made(seed)
    total = reduce(add, (evidence.moments(L, S2, block) for block in blocks))
    found = evidence.gradient(total, MIWAVES.prior, L, S2)
    phi = dense.design_matrix(MIWAVES, rows)
    slow = dense.evidence(phi, rows.reward, rows.participant, MIWAVES.prior, L @ L.T, S2)
    assert found.population.log_evidence == pytest.approx(slow.value, rel=1e-12)
    expected = np.tril(2 * slow.sigma_u @ L)
    np.testing.assert_allclose(found.L, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert found.log_s2 == pytest.approx(slow.log_s2, rel=1e-9)


def test_gradient_of_the_penalised_evidence_is_its_numerical_derivative() -> None:
    _, blocks, L = made(7)
    found = evidence.penalised(MIWAVES, blocks, L, S2)

    def moved(row: int, column: int) -> Callable[[float], float]:
        step = np.zeros_like(L)
        step[row, column] = 1
        return lambda h: evidence.penalised(MIWAVES, blocks, L + h * step, S2).value

    for row, column in [(0, 0), (3, 1), (10, 10), (23, 0), (23, 23), (17, 9), (8, 7), (16, 16)]:
        assert found.L[row, column] == pytest.approx(derivative(moved(row, column), 1e-4), rel=1e-6, abs=1e-6)
    by_log_s2 = derivative(lambda h: evidence.penalised(MIWAVES, blocks, L, S2 * np.exp(h)).value, 1e-3)
    assert found.log_s2 == pytest.approx(by_log_s2, rel=1e-6)


def test_the_penalty_is_the_documented_one() -> None:
    _, blocks, L = made(1)
    found, rule = evidence.penalised(MIWAVES, blocks, L, S2), MIWAVES.hyperparameters
    sigma_u, s0 = L @ L.T, MIWAVES.prior.noise_variance
    shrinkage = np.linalg.slogdet(sigma_u)[1] + rule.sigma_u0 * np.trace(np.linalg.inv(sigma_u))
    penalty = rule.nu0 / 2 * shrinkage + rule.nu_s / 2 * (np.log(S2) + s0 / S2)
    assert found.evidence - found.value == pytest.approx(penalty, rel=1e-10)


def test_pooled_derivative_by_the_noise_alone() -> None:
    rows, blocks, _ = made(2)
    pooled, zero = load({"protocol": "miwaves", "algorithm": "pooled"}), np.zeros((24, 24))
    found = evidence.penalised(pooled, blocks, zero, S2)
    phi = dense.design_matrix(MIWAVES, rows)
    slow = dense.evidence(phi, rows.reward, rows.participant, pooled.prior, zero, S2)
    assert found.evidence == pytest.approx(slow.value, rel=1e-12)
    by_log_s2 = derivative(lambda h: evidence.penalised(pooled, blocks, zero, S2 * np.exp(h)).value, 1e-3)
    assert found.log_s2 == pytest.approx(by_log_s2, rel=1e-8)
    assert not found.L.any()


def test_moments_of_disjoint_sets_add_up() -> None:
    rows, blocks, L = made(3)
    trial = arrange(MIWAVES.design, rows, len(COUNTS))
    whole = evidence.moments(L, S2, statistics(trial, trial.members))
    parts = evidence.moments(L, S2, blocks[0]) + evidence.moments(L, S2, blocks[1])
    np.testing.assert_allclose(parts.second, whole.second, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(parts.sums.Jg, whole.sums.Jg, rtol=1e-12, atol=1e-10)
    assert (parts.sums.rows, parts.sums.participants) == (whole.sums.rows, whole.sums.participants)


def test_other_dimensions() -> None:
    generator = np.random.default_rng(8)
    rows = made_up_trials.random_rows(generator, [12, 30, 1], ORALYTICS)
    trial = arrange(ORALYTICS.design, rows, 3)
    L, s2 = 12.0 * np.eye(15), 900.0
    found = evidence.penalised(ORALYTICS, [statistics(trial, trial.members)], L, s2)
    phi = dense.design_matrix(ORALYTICS, rows)
    slow = dense.evidence(phi, rows.reward, rows.participant, ORALYTICS.prior, L @ L.T, s2)
    assert found.evidence == pytest.approx(slow.value, rel=1e-12)

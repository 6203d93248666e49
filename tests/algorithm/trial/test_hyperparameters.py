"""The hyper-parameter fit against an independent optimiser, and when it must not change anything."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.optimize import minimize

from algorithm.core.arrays import Floats
from algorithm.trial import evidence
from algorithm.trial.hyperparameters import HyperparameterFit, fit_hyperparameters, sample
from algorithm.trial.learning_rows import BadRows, Rows
from algorithm.trial.posterior import Hyperparameters, factor
from algorithm.trial.protocol import Protocol, load
from algorithm.trial.sufficient_statistics import arrange, statistics
from tests.support import dense, made_up_trials

MIWAVES = made_up_trials.MIWAVES
POOLED = load({"protocol": "miwaves", "algorithm": "pooled"})
ORALYTICS = load({"protocol": "oralytics"})


def heterogeneous(seed: int, m: int, n: int) -> Rows:
    """Rows of m participants who differ a lot in some coefficients and hardly in others."""
    generator = np.random.default_rng(seed)
    sigma_u = np.diag(generator.uniform(0.001, 0.2, 24))
    return made_up_trials.model_rows(generator, [n] * m, sigma_u, 1.2)[0]


def penalised(protocol: Protocol, rows: Rows, sigma_u: Floats, s2: float) -> tuple[float, Floats, float]:
    """Value and derivatives (by Sigma_u and log s2) of the objective, from dense matrices."""
    phi = dense.design_matrix(protocol, rows)
    found = dense.evidence(phi, rows.reward, rows.participant, protocol.prior, sigma_u, s2)
    rule, inverse = protocol.hyperparameters, np.linalg.inv(sigma_u)
    s0 = protocol.prior.noise_variance
    shrinkage = np.linalg.slogdet(sigma_u)[1] + rule.sigma_u0 * np.trace(inverse)
    value = found.value - rule.nu0 / 2 * shrinkage - rule.nu_s / 2 * (np.log(s2) + s0 / s2)
    slope = found.sigma_u - rule.nu0 / 2 * (inverse - rule.sigma_u0 * inverse @ inverse)
    return float(value), slope, found.log_s2 - rule.nu_s / 2 * (1 - s0 / s2)


def independent_optimum(protocol: Protocol, rows: Rows) -> tuple[float, Floats, float]:
    """The maximum by BFGS on a full square root of Sigma_u, from another start, with the dense evidence."""
    p = len(protocol.prior.mean)
    scale, s0 = np.sqrt(protocol.prior.sigma_u), protocol.prior.noise_variance

    def fall(x: Floats) -> tuple[float, Floats]:
        root, s2 = scale * x[:-1].reshape(p, p), s0 * np.exp(x[-1])
        value, slope, by_log_s2 = penalised(protocol, rows, root @ root.T, s2)
        return -value, -np.append((2 * scale * slope @ root).ravel(), by_log_s2)

    start = np.append((1.5 * np.eye(p)).ravel(), 0.3)
    found = minimize(fall, start, jac=True, method="BFGS", options={"gtol": 1e-6, "maxiter": 3000})
    root = scale * found.x[:-1].reshape(p, p)
    return -float(found.fun), root @ root.T, s0 * float(np.exp(found.x[-1]))


def test_the_optimum_is_an_independent_optimisers() -> None:
    generator = np.random.default_rng(3)
    sigma_u = np.diag(generator.uniform(10, 900, 15))
    rows, _ = made_up_trials.model_rows(generator, [14] * 12, sigma_u, 2500.0, ORALYTICS)
    found = fit_hyperparameters(ORALYTICS, rows, 12)
    value, expected, s2 = independent_optimum(ORALYTICS, rows)
    assert found.accepted
    assert found.evidence is not None
    assert found.evidence.converged
    assert found.evidence.penalised_after == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(found.hyperparameters.sigma_u, expected, atol=1e-5 * expected.max())
    assert found.hyperparameters.noise_variance == pytest.approx(s2, rel=1e-6)


def test_the_optimum_is_a_fixed_point_of_em() -> None:
    rows, m = heterogeneous(1, 15, 20), 15
    found = fit_hyperparameters(MIWAVES, rows, m).hyperparameters
    sigma_u, s2 = found.sigma_u, found.noise_variance
    rule, p = MIWAVES.hyperparameters, 24
    phi = dense.design_matrix(MIWAVES, rows)
    slow = dense.conditioned(phi, rows.reward, rows.participant, m, MIWAVES.prior, sigma_u, s2)
    V = dense.covariance(phi, rows.participant, MIWAVES.prior, sigma_u, s2)
    spread = rule.nu0 * rule.sigma_u0 * np.eye(p)
    noise = rule.nu_s * MIWAVES.prior.noise_variance
    for i in range(m):
        own = phi * (rows.participant == i)[:, None]
        u = slow.means[i] - slow.population_mean
        covariance = sigma_u - sigma_u @ own.T @ np.linalg.solve(V, own @ sigma_u)
        spread = spread + np.outer(u, u) + covariance
        mine = rows.participant == i
        residual = rows.reward[mine] - phi[mine] @ slow.means[i]
        noise += residual @ residual + np.trace(phi[mine] @ slow.covariances[i] @ phi[mine].T)
    np.testing.assert_allclose(spread / (m + rule.nu0), sigma_u, atol=1e-6 * np.abs(sigma_u).max())
    assert noise / (len(rows.reward) + rule.nu_s) == pytest.approx(s2, rel=1e-6)


def test_no_accepted_step_lowers_the_penalised_evidence() -> None:
    found = fit_hyperparameters(MIWAVES, heterogeneous(2, 40, 30), 40)
    assert found.evidence is not None
    path = np.array([found.evidence.penalised_before, *found.evidence.path])
    assert len(path) > 5
    assert np.diff(path).min() >= -1e-10 * abs(path[0])
    assert found.evidence.penalised_after == pytest.approx(path[-1], rel=1e-12)


def test_the_maximum_is_one_in_every_direction() -> None:
    rows = heterogeneous(4, 20, 20)
    found = fit_hyperparameters(MIWAVES, rows, 20)
    assert found.evidence is not None
    trial = arrange(MIWAVES.design, rows, 20)
    blocks = [statistics(trial, trial.members)]
    L, s2 = factor(found.hyperparameters.sigma_u), found.hyperparameters.noise_variance
    best = found.evidence.penalised_after
    generator = np.random.default_rng(0)
    for _ in range(10):
        moved = L * np.exp(0.01 * generator.normal(size=L.shape))
        assert evidence.penalised(MIWAVES, blocks, moved, s2 * np.exp(0.01 * generator.normal())).value < best


def test_pooled_fits_the_noise_alone() -> None:
    rows = heterogeneous(5, 30, 30)
    found = fit_hyperparameters(POOLED, rows, 30)
    assert found.accepted
    assert not found.hyperparameters.sigma_u.any()
    trial = arrange(POOLED.design, rows, 30)
    blocks, zero = [statistics(trial, trial.members)], np.zeros((24, 24))
    s2 = found.hyperparameters.noise_variance
    values = [evidence.penalised(POOLED, blocks, zero, s2 * f).value for f in (0.999, 1.0, 1.001)]
    assert values[1] == max(values)


def test_equal_rewards_stay_above_the_floor() -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(0), [60] * 30)
    equal = Rows(rows.participant, rows.states, rows.act_prob, rows.action, np.full(1800, 2.0))
    found = fit_hyperparameters(MIWAVES, equal, 30)
    assert found.accepted
    assert 1e-4 * 0.85 <= found.hyperparameters.noise_variance < 0.01
    assert np.linalg.eigvalsh(found.hyperparameters.sigma_u)[0] > 0


def test_threads_change_no_bit() -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(1), [2] * 300)
    alone = fit_hyperparameters(MIWAVES, rows, 300)
    with ThreadPoolExecutor(2) as pool:
        together = fit_hyperparameters(MIWAVES, rows, 300, parallel=pool.map)
    assert (alone.hyperparameters.sigma_u == together.hyperparameters.sigma_u).all()
    assert alone.evidence == together.evidence


def refused(found: HyperparameterFit, previous: Hyperparameters, words: str) -> None:
    assert not found.accepted
    assert found.hyperparameters is previous
    assert found.reason is not None
    assert words in found.reason


def test_where_the_previous_values_stay() -> None:
    previous = Hyperparameters(0.5 * np.eye(24), 2.0)
    many, few = ([20] * 10, [20] * 9), [9] * 11
    rows = [made_up_trials.random_rows(np.random.default_rng(0), counts) for counts in (*many, few)]
    assert fit_hyperparameters(MIWAVES, rows[0], 10, previous).accepted
    refused(fit_hyperparameters(MIWAVES, rows[1], 9, previous), previous, "10 participants")
    refused(fit_hyperparameters(MIWAVES, rows[2], 11, previous), previous, "100 rows")
    fixed = load({"protocol": "miwaves", "hyperparameters": {"rule": "fixed"}})
    refused(fit_hyperparameters(fixed, rows[0], 10, previous), previous, "fixes")
    found = fit_hyperparameters(fixed, rows[0], 10)
    assert (found.hyperparameters.sigma_u == 0.01 * np.eye(24)).all()


def test_what_cannot_be_computed_is_refused_and_visible() -> None:
    previous = Hyperparameters(0.5 * np.eye(24), 2.0)
    rows = made_up_trials.random_rows(np.random.default_rng(0), [20] * 10)
    huge = Rows(rows.participant, rows.states, rows.act_prob, rows.action, 1e160 * rows.reward)
    with np.errstate(over="ignore", invalid="ignore"):
        refused(fit_hyperparameters(MIWAVES, huge, 10, previous), previous, "not computable")
    rows.reward[7] = np.nan
    with pytest.raises(BadRows, match="reward"):
        fit_hyperparameters(MIWAVES, rows, 10)


def test_the_subsample_is_the_same_for_everybody_and_stays_as_participants_join() -> None:
    small = load({"protocol": "miwaves", "hyperparameters": {"subsample": 50}})
    rows = made_up_trials.random_rows(np.random.default_rng(0), [2] * 400)
    found = sample(small, arrange(small.design, rows, 400), map)
    assert (found.participants, found.rows) == (50, 100)
    again = sample(small, arrange(small.design, rows, 500), map)
    assert (again.blocks[0].Ab == found.blocks[0].Ab).all()
    assert sample(MIWAVES, arrange(MIWAVES.design, rows, 400), map).participants == 400

"""The posterior against dense linear algebra, and what must not depend on whom else is there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithm.core.arrays import Floats
from algorithm.trial import learner, posterior
from algorithm.trial.learning_rows import Rows
from algorithm.trial.posterior import Hyperparameters
from algorithm.trial.protocol import Protocol, load
from algorithm.trial.sufficient_statistics import arrange, statistics
from tests.support import dense, made_up_trials

MIWAVES = made_up_trials.MIWAVES
POOLED = load({"protocol": "miwaves", "algorithm": "pooled"})
COUNTS = [7, 0, 1, 60, 24, 3]


def compare(
    protocol: Protocol, rows: Rows, m: int, sigma_u: Floats, s2: float, tolerance: float = 1e-9
) -> None:
    """The fit, to `tolerance` times the scale of each quantity, is what conditioning one Gaussian vector
    gives."""
    found = learner.fit(protocol, rows, m, Hyperparameters(sigma_u, s2))
    phi = dense.design_matrix(protocol, rows)
    slow = dense.conditioned(phi, rows.reward, rows.participant, m, protocol.prior, sigma_u, s2)
    q = found.beta.shape[1]
    pairs = [
        (found.population_mean, slow.population_mean),
        (found.population_covariance, slow.population_covariance),
        (found.beta, slow.means[:, -q:]),
        (found.V, slow.covariances[:, -q:, -q:]),
        (found.block.mean, slow.population_mean[-q:]),
        (found.block.covariance, (slow.population_covariance + sigma_u)[-q:, -q:]),
    ]
    for fast, expected in pairs:
        np.testing.assert_allclose(fast, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max()))
    expected_evidence = dense.evidence(phi, rows.reward, rows.participant, protocol.prior, sigma_u, s2).value
    assert found.log_evidence == pytest.approx(expected_evidence, rel=tolerance / 100)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rank", [None, 24, 5, 1])
def test_any_sigma_u_even_singular(seed: int, rank: int | None) -> None:
    generator = np.random.default_rng(seed)
    rows = made_up_trials.random_rows(generator, COUNTS)
    compare(MIWAVES, rows, len(COUNTS), made_up_trials.random_covariance(generator, 24, 0.05, rank), 0.7)


def test_no_deviations_at_all_is_bayesian_linear_regression() -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(0), COUNTS)
    phi, prior, s2 = dense.design_matrix(MIWAVES, rows), MIWAVES.prior, 0.85
    S = np.linalg.inv(np.diag(prior.sd**-2.0) + phi.T @ phi / s2)
    mean = S @ (prior.mean / prior.sd**2 + phi.T @ rows.reward / s2)
    compare(MIWAVES, rows, len(COUNTS), np.zeros((24, 24)), s2)
    pooled = learner.fit(POOLED, rows, len(COUNTS))
    np.testing.assert_allclose(pooled.population_mean, mean, atol=1e-11)
    np.testing.assert_allclose(pooled.beta, np.tile(mean[-8:], (len(COUNTS), 1)), atol=1e-11)
    np.testing.assert_allclose(pooled.V, np.tile(S[-8:, -8:], (len(COUNTS), 1, 1)), atol=1e-12)
    np.testing.assert_allclose(pooled.block.covariance, S[-8:, -8:], atol=1e-12)


def test_the_stacked_formula_of_the_whole_trial() -> None:
    generator = np.random.default_rng(4)
    rows, m = made_up_trials.random_rows(generator, [9, 4, 30]), 3
    sigma_u = made_up_trials.random_covariance(generator, 24)
    found = learner.fit(MIWAVES, rows, m, Hyperparameters(sigma_u, 0.6))
    phi = dense.design_matrix(MIWAVES, rows)
    mean, covariance = dense.stacked(phi, rows.reward, rows.participant, m, MIWAVES.prior, sigma_u, 0.6)
    for i in range(m):
        last = slice(24 * i + 16, 24 * i + 24)
        np.testing.assert_allclose(found.beta[i], mean[last], atol=1e-9)
        np.testing.assert_allclose(found.V[i], covariance[last, last], atol=1e-9)


@pytest.mark.parametrize("counts", [[1], [60], [0, 1, 0], [1, 1, 1, 1]])
def test_few_participants_and_single_rows(counts: list[int]) -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(1), counts)
    compare(MIWAVES, rows, len(counts), 0.01 * np.eye(24), 0.85)


@pytest.mark.parametrize("reward", [0.0, 2.0, 3.0])
def test_equal_rewards(reward: float) -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(2), COUNTS)
    equal = Rows(rows.participant, rows.states, rows.act_prob, rows.action, np.full_like(rows.reward, reward))
    compare(MIWAVES, equal, len(COUNTS), 0.01 * np.eye(24), 0.85)


@pytest.mark.parametrize("s2", [1e-3, 1e4])
@pytest.mark.parametrize("scale", [1e-6, 1e2])
def test_extreme_hyperparameters(s2: float, scale: float) -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(3), [30, 5, 60])
    compare(MIWAVES, rows, 3, scale * np.eye(24), s2, tolerance=1e-6)


def test_a_wrong_formula_would_be_noticed() -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(0), COUNTS)
    with pytest.raises(AssertionError):
        compare(MIWAVES, rows, len(COUNTS), 0.01 * np.eye(24), 0.85, tolerance=1e-17)
    shifted = Rows(rows.participant, rows.states, rows.act_prob, rows.action, np.roll(rows.reward, 1))
    one, other = (learner.fit(MIWAVES, some, len(COUNTS)) for some in (rows, shifted))
    assert np.abs(one.beta - other.beta).max() > 1e-3


def test_blocks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(5), [5, 0, 12, 60, 1, 30, 30])
    whole = learner.fit(MIWAVES, rows, 7)
    monkeypatch.setattr("algorithm.trial.sufficient_statistics.BLOCK", 2)
    monkeypatch.setattr("algorithm.trial.learner.KEPT", 0)
    parts = learner.fit(MIWAVES, rows, 7)
    for name in ("population_mean", "population_covariance", "beta", "V", "log_evidence"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-10, atol=1e-13)


def test_what_is_kept_between_the_passes_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(5), COUNTS)
    kept = learner.fit(MIWAVES, rows, len(COUNTS))
    monkeypatch.setattr("algorithm.trial.learner.KEPT", 0)
    again = learner.fit(MIWAVES, rows, len(COUNTS))
    assert (kept.beta == again.beta).all()
    assert (kept.V == again.V).all()


@settings(max_examples=25)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 2**32))
def test_a_participants_statistics_are_its_own_to_the_last_bit(counts: list[int], seed: int) -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(seed), counts)
    together = statistics(arrange(MIWAVES.design, rows, len(counts)), np.flatnonzero(counts))
    for place, code in enumerate(np.flatnonzero(counts)):
        alone = statistics(
            arrange(MIWAVES.design, made_up_trials.chosen(rows, rows.participant == code), len(counts)),
            np.array([code]),
        )
        assert (alone.Ab[0] == together.Ab[place]).all()
        assert (alone.c[0], alone.n[0]) == (together.c[place], together.n[place])


@settings(max_examples=20)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=8), st.integers(0, 2**32))
def test_permuting_participants_permutes_their_policies(counts: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    m = len(counts)
    rows = made_up_trials.random_rows(generator, counts)
    codes = generator.permutation(m)
    shuffled = made_up_trials.recoded(rows, codes)
    one, other = learner.fit(MIWAVES, rows, m), learner.fit(MIWAVES, shuffled, m)
    np.testing.assert_allclose(other.beta[codes], one.beta, atol=1e-11)
    np.testing.assert_allclose(other.V[codes], one.V, atol=1e-11)
    assert (other.counts[codes] == one.counts).all()
    assert other.log_evidence == pytest.approx(one.log_evidence, rel=1e-12)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 5), st.integers(0, 2**32))
def test_participants_without_rows_change_nothing(counts: list[int], more: int, seed: int) -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(seed), counts)
    m = len(counts)
    one, other = learner.fit(MIWAVES, rows, m), learner.fit(MIWAVES, rows, m + more)
    assert (other.beta[:m] == one.beta).all()
    assert (other.V[:m] == one.V).all()
    assert (other.beta[m:] == one.block.mean).all()
    assert (other.V[m:] == one.block.covariance).all()
    assert (other.statistics_hash, other.rows, other.participants) == (one.statistics_hash, one.rows, m)


def test_rows_may_come_in_any_order_of_participants() -> None:
    generator = np.random.default_rng(6)
    rows = made_up_trials.random_rows(generator, [20, 20, 20])
    turn_by_turn = made_up_trials.chosen(rows, np.arange(60).reshape(3, 20).T.ravel())
    one, other = learner.fit(MIWAVES, rows, 3), learner.fit(MIWAVES, turn_by_turn, 3)
    assert one.statistics_hash == other.statistics_hash
    assert (one.beta == other.beta).all()


def test_sigma_u_must_be_a_covariance() -> None:
    for wrong in (-np.eye(3), np.diag([1.0, 1.0, np.nan]), np.triu(np.ones((3, 3)))):
        with pytest.raises(ValueError, match="sigma_u"):
            posterior.factor(wrong)
    singular = np.ones((3, 3))
    L = posterior.factor(singular)
    np.testing.assert_allclose(L @ L.T, singular, atol=1e-14)

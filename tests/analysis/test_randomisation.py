"""The checks of the randomisation: right where it was, loud where it was not."""

import numpy as np
import pytest

from algorithm.core.arrays import Floats
from analysis import randomisation


def drawn(seed: int, n: int = 2000) -> tuple[Floats, Floats, Floats]:
    """Actions, probabilities and a covariate on which the probabilities depend."""
    generator = np.random.default_rng(seed)
    covariate = generator.normal(size=n)
    probability = 0.2 + 0.6 / (1 + np.exp(-covariate))
    return (generator.random(n) < probability).astype(np.float64), probability, covariate


def test_a_true_randomisation_gives_standard_normal_numbers() -> None:
    z = []
    for seed in range(400):
        action, probability, covariate = drawn(seed, 300)
        balance = randomisation.balance("x", covariate, action, probability)
        z.append((randomisation.count("all", action, probability).z, balance.z))
    assert np.abs(np.mean(z, axis=0)).max() < 3 / 20
    assert np.abs(np.var(z, axis=0) - 1).max() < 3 * np.sqrt(2 / 400)


def test_by_hand() -> None:
    action, probability = np.array([1.0, 1, 0, 1]), np.array([0.5, 0.8, 0.2, 0.5])
    found = randomisation.counts(["a", "b", "b", "a"], action, probability)
    assert found[0] == randomisation.Count("a", 2, 2, 1.0, 1 / np.sqrt(0.5))
    assert found[1].z == pytest.approx(0)
    assert randomisation.together(found) == pytest.approx(np.exp(-1))  # chi-squared, 2 degrees: exp(-x/2)


def test_a_probability_that_was_not_used_is_found() -> None:
    action, probability, _ = drawn(1)
    assert abs(randomisation.count("all", action, probability - 0.05).z) > 4
    labels = ["low" if p < 0.5 else "high" for p in probability]
    swapped = np.where(probability < 0.5, probability + 0.06, probability - 0.06)
    assert randomisation.together(randomisation.counts(labels, action, swapped)) < 1e-4


def test_a_hidden_covariate_that_steers_actions_is_found() -> None:
    action, _, covariate = drawn(2)
    flat = np.full(len(action), action.mean())
    assert abs(randomisation.count("all", action, flat).z) < 0.1
    assert randomisation.two_sided(randomisation.balance("x", covariate, action, flat).z) < 1e-6


def test_weighting_balances_what_unweighted_means_do_not() -> None:
    action, probability, covariate = drawn(3, 20000)
    found = randomisation.balance("x", covariate, action, probability)
    assert abs(found.standardised) < 0.05
    assert covariate[action == 1].mean() - covariate[action == 0].mean() > 0.2


def test_a_constant_covariate_is_balanced() -> None:
    action, probability, _ = drawn(4)
    assert randomisation.balance("x", np.ones(len(action)), action, probability).z == 0

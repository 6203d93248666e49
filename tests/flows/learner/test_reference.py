"""Posteriors and probabilities against those of an independent dense implementation, to 1e-9."""

import numpy as np
import pytest

from algorithm.core.arrays import Floats
from algorithm.trial import learner, posterior
from algorithm.trial.ladder import prior_block
from algorithm.trial.protocol import load
from algorithm.trial.sufficient_statistics import arrange, statistics
from tests.support import references

PROTOCOL = load({"protocol": "miwaves"})
GOLDEN_VARIANCE = [0.0829, 0.1953, 0.1829, 0.3153, 0.2018, 0.3342, 0.3218, 0.4942]
GOLDEN = [
    0.3937711430,
    0.4239906370,
    0.4218640504,
    0.4383258954,
    0.4250379360,
    0.4399196909,
    0.4388882731,
    0.4497874918,
]


def table(mean: Floats, covariance: Floats) -> Floats:
    features = PROTOCOL.design.features(PROTOCOL.design.states())
    probability = learner.probability_table(mean[None], covariance[None], PROTOCOL, features)[0]
    variance = np.einsum("sq,qr,sr->s", features, covariance, features)
    return np.column_stack([features @ mean, variance, probability])


def close(found: object, expected: object, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", references.POSTERIORS)
def test_population_and_serving_blocks(name: str) -> None:
    reference = references.document(name)
    rows, users = references.trial(reference)
    found, expected = learner.fit(PROTOCOL, rows, len(users)), reference["output"]
    close(found.population_mean, expected["theta_pop_mean"])
    close(found.population_covariance, expected["theta_pop_cov"])
    fitted = {users[code] for code in np.flatnonzero(found.counts)}
    assert fitted == set(expected["last_update_users_list"])
    for user, block in expected["users"].items():
        code = users.index(user)
        close(found.beta[code], block["posterior_mean"][-8:])
        close(found.V[code], np.array(block["posterior_cov_block"])[-8:, -8:])


@pytest.mark.parametrize("name", references.POSTERIORS)
def test_whole_participant_posteriors(name: str) -> None:
    reference = references.document(name)
    rows, users = references.trial(reference)
    trial = arrange(PROTOCOL.design, rows, len(users))
    block, start = statistics(trial, trial.members), learner.start(PROTOCOL)
    L = posterior.factor(start.sigma_u)
    s2 = start.noise_variance
    half = posterior.halves(block, L, s2)
    total = posterior.sums(block, half, posterior.information(block, half, s2), s2)
    population = posterior.population(total, PROTOCOL.prior, s2)
    means, covariances = posterior.slices(posterior.serving(half, width=24), population, s2)
    for code, mean, covariance in zip(trial.members, means, covariances, strict=True):
        expected = reference["output"]["users"][users[code]]
        close(mean, expected["posterior_mean"])
        close(covariance, expected["posterior_cov_block"])


@pytest.mark.parametrize("name", references.POSTERIORS)
def test_advantages_and_exact_probabilities(name: str) -> None:
    reference = references.document(name)
    rows, users = references.trial(reference)
    found = learner.fit(PROTOCOL, rows, len(users))
    values = reference["output"]["advantage"]["values"]
    new = values.pop("__new_user__")
    close(table(found.block.mean, found.block.covariance), np.array(new)[:, [0, 1, 3]])
    for user, expected in values.items():
        code = users.index(user)
        close(table(found.beta[code], found.V[code]), np.array(expected)[:, [0, 1, 3]])


def test_golden_table_of_the_prior() -> None:
    block = prior_block(PROTOCOL)
    found = table(block.mean, block.covariance)
    close(found[:, 0], np.zeros(8))
    close(found[:, 1], GOLDEN_VARIANCE, 1e-15)
    close(found[:, 2], GOLDEN, 1e-10)

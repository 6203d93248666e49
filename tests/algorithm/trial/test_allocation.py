"""The exact probability against adaptive quadrature."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit

from algorithm.trial.allocation import STEEP, probabilities, probability
from algorithm.trial.protocol import Allocation
from tests.support.made_up_trials import MIWAVES

DEPLOYED = MIWAVES.allocation


def integrated(mean: float, variance: float, allocation: Allocation) -> float:
    """The expectation by adaptive quadrature, told where the curve rises."""
    k, centre = allocation.B * math.sqrt(variance), allocation.B * mean - math.log(allocation.C)

    def integrand(z: float) -> float:
        return float(expit(centre + k * z)) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    rise = -centre / k
    edges = sorted({-14.0, 14.0, *(min(max(rise + width / k, -14.0), 14.0) for width in (-40, -6, 0, 6, 40))})
    pieces = [
        quad(integrand, low, high, epsabs=1e-14, epsrel=1e-13, limit=400)[0] for low, high in pairwise(edges)
    ]
    return allocation.lower + (allocation.upper - allocation.lower) * sum(pieces)


@settings(max_examples=120)
@given(st.floats(-4, 4), st.floats(0.01, STEEP), st.floats(0.05, 50))
def test_within_1e10_of_adaptive_quadrature(d: float, steepness: float, C: float) -> None:
    allocation = Allocation(0.2, 0.8, 7.5, C)
    sd = steepness / allocation.B
    found = probability(d * max(sd, 0.1), sd**2, allocation)
    assert found == pytest.approx(integrated(d * max(sd, 0.1), sd**2, allocation), abs=1e-10)


@pytest.mark.parametrize("steepness", [1000.5, 3000.0, 1e4])
@pytest.mark.parametrize("d", [-3.0, -0.5, 0.0, 0.01, 1.0])
def test_the_asymptotic_form_beyond(steepness: float, d: float) -> None:
    sd = steepness / DEPLOYED.B
    assert probability(d * sd, sd**2, DEPLOYED) == pytest.approx(
        integrated(d * sd, sd**2, DEPLOYED), abs=1e-10
    )


@pytest.mark.parametrize("d", [-2.0, 0.0, 0.3, 1.5])
def test_no_step_where_the_forms_meet(d: float) -> None:
    below, above = ((factor * STEEP / DEPLOYED.B) for factor in (1 - 1e-12, 1 + 1e-12))
    assert probability(d * below, below**2, DEPLOYED) == pytest.approx(
        probability(d * above, above**2, DEPLOYED), abs=1e-10
    )


def test_no_variance_is_the_curve_itself() -> None:
    for mean in (-3.0, 0.0, 0.4, 3.0):
        rho = 0.2 + 0.6 / (1 + 5 * math.exp(-DEPLOYED.B * mean))
        assert probability(mean, 0.0, DEPLOYED) == pytest.approx(rho, abs=1e-15)


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, allow_nan=False, allow_infinity=False),
    st.floats(0.01, 0.49),
    st.floats(0.5, 0.99),
)
def test_within_the_limits_for_any_input(mean: float, variance: float, lower: float, upper: float) -> None:
    allocation = Allocation(lower, upper, DEPLOYED.B, DEPLOYED.C)
    found = probability(mean, variance, allocation)
    assert type(found) is float
    assert lower <= found <= upper


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 1e6)), min_size=1, max_size=20))
def test_the_vector_form_is_the_scalar_one(pairs: list[tuple[float, float]]) -> None:
    means, variances = (np.array(column).reshape(1, -1) for column in zip(*pairs, strict=True))
    together = probabilities(means, variances, DEPLOYED)
    alone = [probability(mean, variance, DEPLOYED) for mean, variance in pairs]
    assert together.shape == means.shape
    np.testing.assert_allclose(together[0], alone, rtol=0, atol=1e-14)


def test_vectors_larger_than_a_chunk_and_empty_ones() -> None:
    generator = np.random.default_rng(0)
    means, variances = generator.normal(size=1500), generator.exponential(size=1500)
    together = probabilities(means, variances, DEPLOYED)
    places = [0, 511, 512, 1024, 1499]
    alone = [probability(float(means[i]), float(variances[i]), DEPLOYED) for i in places]
    np.testing.assert_allclose(together[places], alone, rtol=0, atol=1e-14)
    assert probabilities(np.empty((0, 8)), np.empty((0, 8)), DEPLOYED).shape == (0, 8)


@pytest.mark.parametrize(
    ("mean", "variance"), [(math.nan, 1.0), (0.0, math.nan), (0.0, -1e-9), (math.inf, 1.0)]
)
def test_no_distribution_is_refused(mean: float, variance: float) -> None:
    with pytest.raises(ValueError, match="variance"):
        probability(mean, variance, DEPLOYED)
    with pytest.raises(ValueError, match="variances"):
        probabilities(np.array([0.0, mean]), np.array([1.0, variance]), DEPLOYED)


def test_coarser_rules_would_fail() -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    sd = 40 / DEPLOYED.B
    rough = 0.2 + 0.6 * float(weights / weights.sum() @ expit(DEPLOYED.B * sd * nodes - math.log(5)))
    assert abs(rough - integrated(0.0, sd**2, DEPLOYED)) > 1e-4
    assert probability(0.0, sd**2, DEPLOYED) == pytest.approx(integrated(0.0, sd**2, DEPLOYED), abs=1e-10)

"""Smooth posterior sampling: the exact probability of action 1 for a normal posterior of the advantage.

With rho(x) = lower + (upper - lower) / (1 + C exp(-B x)) and x ~ N(mean, variance), the probability is
E[rho(x)] (Ghosh et al., arXiv 2402.17739). The integral is taken by the trapezoid rule, which converges
geometrically for integrands analytic in a strip (Trefethen and Weideman, SIAM Review 56, 2014): on z in
[-8, 8], weights proportional to exp(-z^2 / 2), with max(401, the odd number >= 24 B sd) nodes. Where B sd
exceeds 1,000 the logistic curve is a step compared with the width of the normal, and the asymptotic form
Phi(d) + (pi^2 / 6) / (B sd)^2 phi'(d) with d = (mean - ln C / B) / sd is used instead."""

import math
from functools import lru_cache

import numpy as np
from scipy.special import expit, ndtr

from algorithm.core.arrays import Floats, frozen
from algorithm.trial.protocol import Allocation

STEEP = 1000.0
"""B sd above which the asymptotic form is used."""
_LEAST_NODES = 401
_ROUNDING = 1e-12
_CHUNK = 512


def probability(mean: float, variance: float, allocation: Allocation) -> float:
    """Return E[rho(x)] for x ~ N(mean, variance), in [lower, upper], within 1e-10 of the exact integral.

    Raises ValueError unless both are finite and `variance` is not negative.
    """
    if not (math.isfinite(mean) and math.isfinite(variance) and variance >= 0):
        raise ValueError(f"no advantage distribution: mean {mean!r}, variance {variance!r}")
    steepness = allocation.B * math.sqrt(variance)
    centre = allocation.B * mean - math.log(allocation.C)
    if steepness > STEEP:
        share = _step(centre / steepness, steepness)
    else:
        # an odd number of nodes: one of them is the mean
        nodes, weights = _rule(max(_LEAST_NODES, math.ceil(24 * steepness) // 2 * 2 + 1))
        share = float(weights @ expit(centre + steepness * nodes))
    value = allocation.lower + (allocation.upper - allocation.lower) * share
    # rounding may carry the value a little over a bound, anything more would be a mistake in the formula
    assert allocation.lower - _ROUNDING <= value <= allocation.upper + _ROUNDING
    return min(max(value, allocation.lower), allocation.upper)


def probabilities(means: Floats, variances: Floats, allocation: Allocation) -> Floats:
    """Return `probability` of each element of two arrays of equal shape, in that shape."""
    if not (np.isfinite(means).all() and np.isfinite(variances).all() and (variances >= 0).all()):
        raise ValueError(
            "no advantage distribution: means and variances must be finite, variances not negative"
        )
    steepness = allocation.B * np.sqrt(variances.ravel())
    centres = allocation.B * means.ravel() - math.log(allocation.C)
    # the shares are E[1 / (1 + exp(-(centre + steepness z)))], z ~ N(0, 1)
    steep = steepness > STEEP
    counts = np.maximum(_LEAST_NODES, np.ceil(24 * np.where(steep, 0, steepness)) // 2 * 2 + 1).astype(
        np.int64
    )
    shares = np.empty_like(centres)
    for place in np.flatnonzero(steep):
        shares[place] = _step(float(centres[place] / steepness[place]), float(steepness[place]))
    for count in np.unique(counts[~steep]):
        places = np.flatnonzero(~steep & (counts == count))
        nodes, weights = _rule(int(count))
        # in chunks of elements, so that the matrix of elements by nodes stays of bounded size
        step = max(1, _CHUNK * _LEAST_NODES // int(count))
        for start in range(0, len(places), step):
            chunk = places[start : start + step]
            shares[chunk] = expit(centres[chunk, None] + steepness[chunk, None] * nodes) @ weights
    values = allocation.lower + (allocation.upper - allocation.lower) * shares
    half_width = (allocation.upper - allocation.lower) / 2 + _ROUNDING
    assert (np.abs(values - (allocation.lower + allocation.upper) / 2) <= half_width).all()
    return np.clip(values, allocation.lower, allocation.upper).reshape(means.shape)


@lru_cache(maxsize=32)
def _rule(count: int) -> tuple[Floats, Floats]:
    """Return the `count` equally spaced nodes on [-8, 8] and their weights, which sum to 1."""
    nodes = np.linspace(-8, 8, count)
    weights = np.exp(-(nodes**2) / 2)
    return frozen(nodes), frozen(weights / weights.sum())


def _step(d: float, steepness: float) -> float:
    """Return the asymptotic form for a steep curve; d is the mean's distance from the step in standard
    deviations."""
    d = min(max(d, -40.0), 40.0)  # beyond, the normal distribution function is 0 or 1 in float64
    density = math.exp(-d * d / 2) / math.sqrt(2 * math.pi)
    return float(ndtr(d)) - math.pi**2 / 6 / steepness / steepness * d * density

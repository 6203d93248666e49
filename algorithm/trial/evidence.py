"""The evidence as a function of the hyper-parameters, and its gradient, in one pass over blocks of
participants.

With R = [J g] of a participant (see `posterior`), e = [-tp ; 1] and Q = e e' + [[S 0] [0 0]], all that
the gradient needs of single participants is linear in the products of the elements of R with each other:

    D = 1/2 sum_i (R_i Q R_i' - J_i),       d log p(data) / dL = tril(2 D L).

So their matrix of second moments, added over participants, is enough, and participants need to be met
only once. The evidence scales with the covariance of the data, which gives the derivative for the noise
variance without more ado:

    d log p(data) / d log s2 = 1/2 [ sum r - 2 tp'(sum g) + tp'(sum J) tp + tr(S sum J) - N ] - tr(D Sigma_u).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import numpy as np
from scipy.linalg import solve_triangular

from algorithm.core.arrays import Floats, Mapper
from algorithm.trial.posterior import Population, Sums, halves, information, population, sums
from algorithm.trial.protocol import Prior, Protocol
from algorithm.trial.sufficient_statistics import Statistics, elements, packed_places


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over participants that give the evidence and its gradient. `second` is the sum of v v', where v
    holds the lower triangle of J, by rows, then g. Moments of disjoint sets of participants add up."""

    sums: Sums
    second: Floats

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.sums + other.sums, self.second + other.second)


@dataclass(frozen=True, slots=True, eq=False)
class Gradient:
    """Derivatives of the log evidence: `L` (p, p), lower triangular, and `log_s2`, with the population
    they are at."""

    population: Population
    L: Floats
    log_s2: float


@dataclass(frozen=True, slots=True, eq=False)
class Penalised:
    """Log evidence, penalised log evidence, and the latter's derivatives: `L` (p, p), lower triangular, and
    `log_s2`."""

    evidence: float
    value: float
    L: Floats
    log_s2: float


def moments(L: Floats, s2: float, block: Statistics) -> Moments:
    """Return the moments of the participants in `block` at Sigma_u = L L' and the noise variance s2."""
    half = halves(block, L, s2)
    Jg = information(block, half, s2)
    v = Jg.reshape(len(Jg), -1).take(elements(len(L)), axis=1)
    return Moments(sums(block, half, Jg, s2), v.T @ v)


def gradient(total: Moments, prior: Prior, L: Floats, s2: float) -> Gradient:
    """Return the log evidence and its derivatives from the moments of all participants."""
    posterior = population(total.sums, prior, s2)
    tp, S = posterior.mean, posterior.covariance
    J, g = total.sums.Jg[:, :-1], total.sums.Jg[:, -1]
    e = np.append(-tp, 1.0)
    Q = np.outer(e, e)
    Q[:-1, :-1] += S
    # sum_i R_i Q R_i' from the second moments of the elements of R_i
    place = packed_places(len(tp))  # in v, whose order is that of packed statistics
    weighted = total.second[:, place] @ Q
    products: Floats = weighted[place[:, None, :], np.arange(len(place))[None, :, None], np.arange(len(Q))]
    D = (np.asarray(products.sum(axis=2)) - J) / 2
    D = (D + D.T) / 2  # symmetric in exact arithmetic
    spread = total.sums.r - 2 * float(tp @ g) + float(tp @ J @ tp) + float((S * J).sum())
    log_s2 = (spread - total.sums.rows) / 2 - float((D * (L @ L.T)).sum())
    return Gradient(posterior, np.tril(2 * D @ L), log_s2)


def penalised(
    protocol: Protocol, blocks: Iterable[Statistics], L: Floats, s2: float, parallel: Mapper = map
) -> Penalised:
    """Return the penalised log evidence (see `hyperparameters`) at Sigma_u = L L', L lower triangular, and
    s2."""
    rule, s0 = protocol.hyperparameters, protocol.prior.noise_variance
    slope = gradient(reduce(add, parallel(partial(moments, L, s2), blocks)), protocol.prior, L, s2)
    penalty, d_penalty = 0.0, np.zeros_like(L)
    # L is zero under `pooled`: then Sigma_u carries no penalty, and has no logarithm
    if L.any():
        inverse = solve_triangular(L, np.eye(len(L)), lower=True)
        log_det = 2 * float(np.log(np.diag(L)).sum())
        penalty = rule.nu0 / 2 * (log_det + rule.sigma_u0 * float((inverse**2).sum()))
        cubic = np.tril(inverse.T @ inverse @ inverse.T)
        d_penalty = rule.nu0 * (np.diag(np.diag(inverse)) - rule.sigma_u0 * cubic)
    evidence = slope.population.log_evidence
    value = evidence - penalty - rule.nu_s / 2 * (math.log(s2) + s0 / s2)
    return Penalised(evidence, value, slope.L - d_penalty, slope.log_s2 - rule.nu_s / 2 * (1 - s0 / s2))

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
from functools import lru_cache, partial, reduce
from operator import add

import numpy as np
from scipy.linalg import solve_triangular

from algorithm.core.arrays import Floats, Ints, Mapper
from algorithm.trial.posterior import Population, Sums, halves, information, population, sums
from algorithm.trial.protocol import HyperparameterRule, Prior, Protocol
from algorithm.trial.sufficient_statistics import Statistics, elements


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over participants, and `second`, the sum of v v' where v holds the lower triangle of J, by
    rows, then g. Moments of disjoint sets of participants add up."""

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
    """What the participants in `block` contribute at Sigma_u = L L' and the noise variance s2."""
    half = halves(block, L, s2)
    Jg = information(block, half, s2)
    v = Jg.reshape(len(Jg), -1).take(elements(len(L)), axis=1)
    return Moments(sums(block, half, Jg, s2), v.T @ v)


def gradient(total: Moments, prior: Prior, L: Floats, s2: float) -> Gradient:
    """The log evidence and its derivatives from the moments of all participants."""
    found = population(total.sums, prior, s2)
    J, g = total.sums.Jg[:, :-1], total.sums.Jg[:, -1]
    D = (_contract(total.second, _weights(found)) - J) / 2
    D = (D + D.T) / 2
    tp, S = found.mean, found.covariance
    spread = total.sums.r - 2 * float(tp @ g) + float(tp @ J @ tp) + float((S * J).sum())
    log_s2 = (spread - total.sums.rows) / 2 - float((D * (L @ L.T)).sum())
    return Gradient(found, np.tril(2 * D @ L), log_s2)


def penalised(
    protocol: Protocol, blocks: Iterable[Statistics], L: Floats, s2: float, parallel: Mapper = map
) -> Penalised:
    """The penalised log evidence (see `hyperparameters`) at Sigma_u = L L', L lower triangular, and s2.
    Where L is zero, as `pooled` has it, Sigma_u carries no penalty."""
    rule, s0 = protocol.hyperparameters, protocol.prior.noise_variance
    found = gradient(reduce(add, parallel(partial(moments, L, s2), blocks)), protocol.prior, L, s2)
    shrink, d_shrink = _shrinkage(rule, L) if L.any() else (0.0, np.zeros_like(L))
    evidence = found.population.log_evidence
    value = evidence - shrink - rule.nu_s / 2 * (math.log(s2) + s0 / s2)
    return Penalised(evidence, value, found.L - d_shrink, found.log_s2 - rule.nu_s / 2 * (1 - s0 / s2))


def _shrinkage(rule: HyperparameterRule, L: Floats) -> tuple[float, Floats]:
    """The penalty on Sigma_u = L L', and its derivatives by L."""
    inverse = solve_triangular(L, np.eye(len(L)), lower=True)
    value = 2 * float(np.log(np.diag(L)).sum()) + rule.sigma_u0 * float((inverse**2).sum())
    slope = np.diag(np.diag(inverse)) - rule.sigma_u0 * np.tril(inverse.T @ inverse @ inverse.T)
    return rule.nu0 / 2 * value, rule.nu0 * slope


def _weights(found: Population) -> Floats:
    """Q (p + 1, p + 1)."""
    e = np.append(-found.mean, 1.0)
    Q = np.outer(e, e)
    Q[:-1, :-1] += found.covariance
    return Q


def _contract(second: Floats, Q: Floats) -> Floats:
    """sum_i R_i Q R_i' (p, p) from the second moments of the elements of R_i."""
    place = _places(len(Q) - 1)
    weighted = second[:, place] @ Q
    kept: Floats = weighted[place[:, None, :], np.arange(len(place))[None, :, None], np.arange(len(Q))]
    return np.asarray(kept.sum(axis=2))


@lru_cache(maxsize=8)
def _places(p: int) -> Ints:
    """(p, p + 1): the position in v (see `statistics.elements`) of each element of [J g]."""
    rows, columns = np.tril_indices(p)
    place = np.empty((p, p + 1), dtype=np.int64)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    place[:, p] = len(rows) + np.arange(p)
    return place

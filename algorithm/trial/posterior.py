"""The posterior of the mixed-effects model, computed with one small matrix per participant.

    R = phi' theta_i + eps,  eps ~ N(0, s2);   theta_i = theta_pop + u_i
    theta_pop ~ N(mu, diag(sd^2));   u_i ~ N(0, Sigma_u),  Sigma_u = L L'

With a participant's statistics A, b, c and K = s2 I + L'A L, M = L K^-1 L':

    J = (A - A M A) / s2      g = (b - A M b) / s2      r = (c - b'M b) / s2

which are Z'V^-1 Z, Z'V^-1 y and y'V^-1 y for the participant's design Z, rewards y and V = Z Sigma_u Z' +
s2 I. They are additive, and their sums over participants give everything about the population:

    theta_pop | data ~ N(tp, S):  S = (diag(sd^-2) + sum J)^-1,  tp = mu + S h,  h = sum g - (sum J) mu
    log p(data) = -1/2 [ N log 2 pi + (N - m p) log s2 + sum log|K| + log|diag(sd^2)| - log|S| + Q - h'S h ],
    Q = sum r - 2 mu'(sum g) + mu'(sum J) mu
    theta_i | data ~ N(tp + M (b - A tp), G S G' + s2 M),  G = I - M A

K is at least s2 I, so Sigma_u may be singular and is never inverted; blocks of participants can be
computed anywhere. The algebra is that of linear mixed models (Laird and Ware, Biometrics 38, 1982) for
the model of reBandit (Ghosh et al., arXiv 2402.17739)."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve

from algorithm.core.arrays import Floats
from algorithm.trial.protocol import Prior
from algorithm.trial.sufficient_statistics import Statistics

_LEAF = 12


@dataclass(frozen=True, slots=True, eq=False)
class Hyperparameters:
    """Sigma_u (p, p), the covariance of participants' deviations, and the variance of the noise, in reward
    units squared."""

    sigma_u: Floats
    noise_variance: float


@dataclass(frozen=True, slots=True, eq=False)
class Half:
    """The factorisations of k participants: X (k, p, p) with X'X = M, W (k, p, p + 1) = X [A b], and the sum
    of log|K|."""

    X: Floats
    W: Floats
    log_det: float


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Sums over participants: `Jg` (p, p + 1), which is J with g as its last column, r, log|K|, rows, and
    the number of participants. Sums of disjoint sets of participants add up."""

    Jg: Floats
    r: float
    log_det: float
    rows: int
    participants: int

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, name) + getattr(other, name) for name in Sums.__dataclass_fields__))


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """theta_pop | data ~ N(mean, covariance), (p,) and (p, p), and log p(data), everything else
    integrated out."""

    mean: Floats
    covariance: Floats
    log_evidence: float


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """The numbers that give the last `width` coefficients of k participants, together with the population's
    posterior: the last rows of M [A b], (k, width, p + 1), and the last block of M, (k, width, width)."""

    MAb: Floats
    M: Floats


def factor(sigma_u: Floats) -> Floats:
    """Return L with L L' = `sigma_u`: its Cholesky factor, or one from its eigenvectors where it is singular.
    Raises ValueError unless it is finite, symmetric and positive semi-definite within rounding."""
    scale = np.abs(sigma_u).max()
    if not np.isfinite(scale) or np.abs(sigma_u - sigma_u.T).max() > 1e-9 * scale:
        raise ValueError("sigma_u: must be finite and symmetric")
    try:
        return cholesky(sigma_u)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(sigma_u)
        if values[0] < -1e-9 * scale:
            raise ValueError("sigma_u: must be positive semi-definite") from None
        half: Floats = vectors * np.sqrt(np.maximum(values, 0))
        return half


def halves(block: Statistics, L: Floats, s2: float) -> Half:
    """Return the factorisations from which all else about the participants in `block` is computed."""
    A = block.Ab[:, :, :-1]
    C = cholesky(s2 * np.eye(len(L)) + L.T @ A @ L)
    X = np.broadcast_to(L.T, C.shape).copy()
    _substitute(C, X)
    return Half(X, X @ block.Ab, 2 * float(np.log(np.diagonal(C, axis1=1, axis2=2)).sum()))


def information(block: Statistics, half: Half, s2: float) -> Floats:
    """Return [J g] of each participant, (k, p, p + 1)."""
    return (block.Ab - half.W[:, :, :-1].mT @ half.W) / s2


def sums(block: Statistics, half: Half, Jg: Floats, s2: float) -> Sums:
    """Return the sums over a block's participants; `Jg` is the result of `information`."""
    r = float(block.c.sum() - (half.W[:, :, -1] ** 2).sum()) / s2
    return Sums(Jg.sum(axis=0), r, half.log_det, int(block.n.sum()), len(block.n))


def population(total: Sums, prior: Prior, s2: float) -> Population:
    """Return the posterior of theta_pop from the sums over all participants."""
    J, g, mu = total.Jg[:, :-1], total.Jg[:, -1], prior.mean
    # matrices are made symmetric to the last bit: rounding leaves them symmetric only nearly
    C = cholesky(np.diag(prior.sd**-2.0) + (J + J.T) / 2)
    S = cho_solve((C, True), np.eye(len(C)))
    h = g - J @ mu
    shift = S @ h
    fit = total.r - 2 * float(mu @ g) + float(mu @ J @ mu) - float(h @ shift)
    constant = total.rows * math.log(2 * math.pi) + (total.rows - total.participants * len(C)) * math.log(s2)
    log_dets = total.log_det + 2 * float(np.log(prior.sd).sum() + np.log(np.diag(C)).sum())
    return Population(mu + shift, (S + S.T) / 2, -(constant + log_dets + fit) / 2)


def serving(half: Half, width: int) -> Serving:
    """Return the numbers that give the last `width` coefficients of each participant."""
    last = half.X[:, :, -width:]
    return Serving(last.mT @ half.W, last.mT @ last)


def slices(own: Serving, posterior: Population, s2: float) -> tuple[Floats, Floats]:
    """Return the means (k, width) and covariances (k, width, width) of the last coefficients of each
    theta_i, from participants' own numbers and the population's posterior."""
    width = own.M.shape[1]
    MA, Mb = own.MAb[:, :, :-1], own.MAb[:, :, -1]
    # G S G' as a product of a root with its transpose stays positive semi-definite under rounding
    root = (np.eye(len(posterior.mean))[-width:] - MA) @ cholesky(posterior.covariance)
    return posterior.mean[-width:] + Mb - MA @ posterior.mean, root @ root.mT + s2 * own.M


def cholesky(matrices: Floats) -> Floats:
    """Return the lower Cholesky factors of matrices (..., p, p)."""
    return np.asarray(np.linalg.cholesky(matrices), dtype=np.float64)


def _substitute(C: Floats, X: Floats) -> None:
    """Replace X (k, p, r) by C^-1 X, C (k, p, p) lower triangular, by forward substitution in halves and then
    by rows."""
    # this way the work is in batched matrix products, several times faster than batched triangular solvers
    size = C.shape[1]
    if size > _LEAF:
        middle = size // 2
        _substitute(C[:, :middle, :middle], X[:, :middle])
        X[:, middle:] -= C[:, middle:, :middle] @ X[:, :middle]
        _substitute(C[:, middle:, middle:], X[:, middle:])
        return
    X[:, 0] /= C[:, 0, 0, None]
    for row in range(1, size):
        X[:, row] -= (C[:, row, None, :row] @ X[:, :row])[:, 0]
        X[:, row] /= C[:, row, row, None]

"""The slow formulas: the same model with every matrix written out, for tests and benchmarks to compare
with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from algorithm.core.arrays import Floats
from algorithm.trial.learning_rows import Rows
from algorithm.trial.protocol import Prior, Protocol

Codes = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Posterior:
    """Means and covariances of theta_pop, (p,) and (p, p), and of each theta_i, (m, p) and (m, p, p)."""

    population_mean: Floats
    population_covariance: Floats
    means: Floats
    covariances: Floats


@dataclass(frozen=True)
class Evidence:
    """Log density of the rewards, and its derivatives by the (symmetric) Sigma_u and by log s2."""

    value: float
    sigma_u: Floats
    log_s2: float


def design_matrix(protocol: Protocol, rows: Rows) -> Floats:
    """phi, row by row."""
    found = []
    for state, pi, action in zip(rows.states, rows.act_prob, rows.action, strict=True):
        f = protocol.design.features(tuple(state))
        found.append([*f, *(pi * f), *((action - pi) * f)])
    return np.array(found)


def stacked(
    phi: Floats, y: Floats, who: Codes, m: int, prior: Prior, sigma_u: Floats, s2: float
) -> tuple[Floats, Floats]:
    """Mean (m p,) and covariance (m p, m p) of theta_1 ... theta_m: the prior covariance and the
    posterior precision of all of them at once, both inverted explicitly. O((m p)^3); Sigma_u must not be
    singular."""
    p = phi.shape[1]
    covariance = np.kron(np.ones((m, m)), np.diag(prior.sd**2)) + np.kron(np.eye(m), sigma_u)
    precision = np.linalg.inv(covariance)
    projected = precision @ np.tile(prior.mean, m)
    information = np.zeros_like(precision)
    for i in range(m):
        own, place = phi[who == i], slice(i * p, (i + 1) * p)
        information[place, place] = own.T @ own / s2
        projected[place] += own.T @ y[who == i] / s2
    found = np.asarray(np.linalg.inv(precision + information), dtype=np.float64)
    return found @ projected, found


def conditioned(
    phi: Floats, y: Floats, who: Codes, m: int, prior: Prior, sigma_u: Floats, s2: float
) -> Posterior:
    """Everything by conditioning one Gaussian vector on the N rewards, with an N x N covariance: Sigma_u
    may be singular, and participants may have no rows."""
    p = phi.shape[1]
    V = covariance(phi, who, prior, sigma_u, s2)
    residual = np.linalg.solve(V, y - phi @ prior.mean)
    shared = np.diag(prior.sd**2) @ phi.T
    means, covariances = np.empty((m, p)), np.empty((m, p, p))
    for i in range(m):
        with_rewards = shared + sigma_u @ (phi * (who == i)[:, None]).T
        means[i] = prior.mean + with_rewards @ residual
        covariances[i] = np.diag(prior.sd**2) + sigma_u - with_rewards @ np.linalg.solve(V, with_rewards.T)
    mean = prior.mean + shared @ residual
    return Posterior(mean, np.diag(prior.sd**2) - shared @ np.linalg.solve(V, shared.T), means, covariances)


def covariance(phi: Floats, who: Codes, prior: Prior, sigma_u: Floats, s2: float) -> Floats:
    """The covariance (N, N) of the rewards."""
    same = who[:, None] == who[None, :]
    found: Floats = (phi * prior.sd**2) @ phi.T + same * (phi @ sigma_u @ phi.T) + s2 * np.eye(len(who))
    return found


def evidence(phi: Floats, y: Floats, who: Codes, prior: Prior, sigma_u: Floats, s2: float) -> Evidence:
    """The density of N rewards at once, and its derivatives from tr(V^-1 dV) and r'V^-1 dV V^-1 r."""
    V = covariance(phi, who, prior, sigma_u, s2)
    inverse, r = np.linalg.inv(V), y - phi @ prior.mean
    alpha = inverse @ r
    value = -(len(y) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + r @ alpha) / 2
    spread = np.outer(alpha, alpha) - inverse
    by_sigma = sum(phi[who == i].T @ spread[np.ix_(who == i, who == i)] @ phi[who == i] for i in set(who)) / 2
    return Evidence(float(value), np.asarray(by_sigma), float(s2 * np.trace(spread) / 2))

"""Policies from learning rows: fit, prior, activation gate, and the size of a change.

A policy is always computed from all rows since the study's start and the original prior. Work is done in
blocks of participants, so memory beyond rows and results does not grow with their number; `parallel` may
be an executor's `map`."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import numpy as np

from algorithm.allocation import probabilities
from algorithm.arrays import Floats, Ints, Mapper
from algorithm.ladder import Block
from algorithm.posterior import (
    Hyperparameters,
    Population,
    Serving,
    Sums,
    factor,
    halves,
    information,
    population,
    serving,
    slices,
    sums,
)
from algorithm.protocol import Protocol
from algorithm.rows import Rows
from algorithm.statistics import Source, arrange, blocks, fingerprint

KEPT = 50_000
"""Up to this many participants, what serving needs is kept between the two passes (2 kB each); beyond,
computed anew."""


class NothingToLearn(ValueError):
    """No participant has a learning row, or the algorithm does not learn: the policy stays as it is."""


class Refused(ValueError):
    """A fit that must not serve; the message says why. The previous policy keeps serving."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A policy's numbers.

    `population_mean` tp (p,) and `population_covariance` S (p, p); `sigma_u` (p, p) and `noise_variance`,
    used; `block` for a participant without rows, the advantage block of N(tp, S + Sigma_u); `beta` (m, q)
    and `V` (m, q, q) the advantage blocks of all m participants by code; `counts` (m,) their rows (a
    participant with none has `block`, and was not in the fit); `rows` and `participants` (those with a
    row) in total; `log_evidence`; `statistics_hash` of exactly what was learnt from, in hexadecimal."""

    population_mean: Floats
    population_covariance: Floats
    sigma_u: Floats
    noise_variance: float
    block: Block
    beta: Floats
    V: Floats
    counts: Ints
    rows: int
    participants: int
    log_evidence: float
    statistics_hash: str


def start(protocol: Protocol) -> Hyperparameters:
    """The protocol's starting values: sigma_u I (zero for `pooled`) and the prior's noise variance."""
    scale = 0.0 if protocol.algorithm == "pooled" else protocol.prior.sigma_u
    return Hyperparameters(scale * np.eye(len(protocol.prior.mean)), protocol.prior.noise_variance)


def prior_policy(protocol: Protocol) -> Fit:
    """Policy 0: the prior, with no participant in it."""
    prior, q = protocol.prior, len(protocol.design.feature_names)
    found = Population(np.array(prior.mean), np.diag(prior.sd**2), 0.0)
    used = start(protocol)
    return Fit(
        population_mean=found.mean,
        population_covariance=found.covariance,
        sigma_u=used.sigma_u,
        noise_variance=used.noise_variance,
        block=_new_participant(found, used.sigma_u, q),
        beta=np.empty((0, q)),
        V=np.empty((0, q, q)),
        counts=np.empty(0, dtype=np.int64),
        rows=0,
        participants=0,
        log_evidence=0.0,
        statistics_hash=hashlib.sha256().hexdigest(),
    )


def fit(
    protocol: Protocol,
    rows: Rows,
    participants: int,
    hyperparameters: Hyperparameters | None = None,
    parallel: Mapper = map,
) -> Fit:
    """The policy from `rows` of participants coded 0 to `participants` - 1, under `hyperparameters`
    (None: the protocol's start; of `pooled` only the noise variance is used).

    Raises NothingToLearn, BadRows for rows that cannot be used, ValueError for hyper-parameters that
    cannot be."""
    return fit_statistics(protocol, arrange(protocol.design, rows, participants), hyperparameters, parallel)


def fit_statistics(
    protocol: Protocol, source: Source, hyperparameters: Hyperparameters | None = None, parallel: Mapper = map
) -> Fit:
    """The same from statistics: those of stored rows, or those that were stored themselves."""
    if protocol.algorithm == "fixed_probability":
        raise NothingToLearn("nothing to learn from: the algorithm fixed_probability does not learn")
    if not len(source.members):
        raise NothingToLearn("nothing to learn from: no participant has a learning row")
    used = _usable(protocol, hyperparameters or start(protocol))
    return _policy(source, protocol, used, parallel)


def _policy(source: Source, protocol: Protocol, used: Hyperparameters, parallel: Mapper) -> Fit:
    """Two passes over blocks of participants: what they add to the population, and what serves each of
    them."""
    L, s2, q = factor(used.sigma_u), used.noise_variance, len(protocol.design.feature_names)
    parts = blocks(source.members)
    width = q if len(source.members) <= KEPT else 0
    firsts = list(parallel(partial(_first, source, L, s2, width), parts))
    total = reduce(add, (first.sums for first in firsts))
    found = population(total, protocol.prior, s2)
    block = _new_participant(found, used.sigma_u, q)
    beta, V = _everybody(block, len(source.counts))
    seconds = parallel(partial(_second, source, L, s2, q, found), parts, (first.serving for first in firsts))
    for members, (means, covariances) in zip(parts, seconds, strict=True):
        beta[members], V[members] = means, covariances
    return Fit(
        population_mean=found.mean,
        population_covariance=found.covariance,
        sigma_u=used.sigma_u,
        noise_variance=s2,
        block=block,
        beta=beta,
        V=V,
        counts=source.counts,
        rows=total.rows,
        participants=total.participants,
        log_evidence=found.log_evidence,
        statistics_hash=hashlib.sha256(b"".join(first.fingerprint for first in firsts)).hexdigest(),
    )


def gate(fit: Fit, protocol: Protocol) -> None:
    """Raise Refused unless every number of `fit` is finite, every covariance symmetric and positive
    definite, and every posterior mean within the protocol's bound in absolute value."""
    means = (fit.population_mean, fit.block.mean, fit.beta)
    covariances = (fit.population_covariance, fit.block.covariance, fit.V)
    _refuse(not all(np.isfinite(array).all() for array in (*means, *covariances)), "a number is not finite")
    largest = max(float(np.abs(mean).max(initial=0)) for mean in means)
    _refuse(largest > protocol.mean_bound, f"a mean of {largest:.6g} is beyond {protocol.mean_bound:.6g}")
    for V in covariances:
        _refuse(
            np.abs(V - V.mT).max(initial=0) > 1e-9 * np.abs(V).max(initial=0), "a covariance is not symmetric"
        )
        _refuse(not _positive_definite(V), "a covariance is not positive definite")


def largest_change(before: Sequence[Floats], after: Sequence[Floats], protocol: Protocol) -> float:
    """The largest absolute change of the probability of action 1, over participants and the design's states.

    `before` and `after` are (beta (k, q), V (k, q, q)) of the same k participants in the same order; 0
    for none."""
    features = protocol.design.features(protocol.design.states())
    change = [probability_table(beta, V, protocol, features) for beta, V in (before, after)]
    return float(np.abs(change[1] - change[0]).max(initial=0))


def probability_table(beta: Floats, V: Floats, protocol: Protocol, features: Floats) -> Floats:
    """The probability of action 1, (k, r), under each of k blocks at each of r rows of `features` (r, q)."""
    means = beta @ features.T
    variances = ((features @ V) * features).sum(axis=-1)
    return probabilities(means, np.maximum(variances, 0), protocol.allocation)


def _usable(protocol: Protocol, given: Hyperparameters) -> Hyperparameters:
    if not (math.isfinite(given.noise_variance) and given.noise_variance > 0):
        raise ValueError("noise_variance: must be a number above 0")
    sigma_u = start(protocol).sigma_u if protocol.algorithm == "pooled" else given.sigma_u
    if sigma_u.shape != start(protocol).sigma_u.shape:
        raise ValueError(f"sigma_u: shape {sigma_u.shape} does not fit the protocol")
    return Hyperparameters(sigma_u, float(given.noise_variance))


@dataclass(frozen=True, slots=True, eq=False)
class _First:
    """What a block contributes: its sums and fingerprint, and, where it is kept, what serving needs."""

    sums: Sums
    fingerprint: bytes
    serving: Serving | None


def _first(source: Source, L: Floats, s2: float, width: int, members: Ints) -> _First:
    """`width`: of the block that serving needs, 0 where it is not kept."""
    block = source.block(members)
    half = halves(block, L, s2)
    kept = serving(half, width) if width else None
    return _First(sums(block, half, information(block, half, s2), s2), fingerprint(block), kept)


def _second(
    source: Source, L: Floats, s2: float, q: int, found: Population, members: Ints, kept: Serving | None
) -> tuple[Floats, Floats]:
    if kept is None:
        kept = serving(halves(source.block(members), L, s2), q)
    return slices(kept, found, s2)


def _everybody(block: Block, m: int) -> tuple[Floats, Floats]:
    """beta (m, q) and V (m, q, q) with `block` for each of m participants."""
    return np.tile(block.mean, (m, 1)), np.tile(block.covariance, (m, 1, 1))


def _new_participant(found: Population, sigma_u: Floats, q: int) -> Block:
    return Block(found.mean[-q:], (found.covariance + sigma_u)[-q:, -q:])


def _positive_definite(V: Floats) -> bool:
    try:
        np.linalg.cholesky(V)
    except np.linalg.LinAlgError:
        return False
    return True


def _refuse(fault: bool, reason: str) -> None:
    if fault:
        raise Refused(reason)

"""Policies from learning rows: fit, prior, activation gate, and the size of a change.

A policy is always computed from all rows since the study's start and the original prior. Work is done in
blocks of participants, so memory beyond rows and results does not grow with their number; `parallel` may
be an executor's `map`."""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import numpy as np

from algorithm.core.arrays import Floats, Ints, Mapper
from algorithm.trial.allocation import probabilities
from algorithm.trial.ladder import Block
from algorithm.trial.learning_rows import Rows
from algorithm.trial.posterior import (
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
from algorithm.trial.protocol import Protocol
from algorithm.trial.sufficient_statistics import Source, arrange, blocks, fingerprint

KEPT = 50_000
"""Up to this many participants, what serving needs is kept between the two passes (2 kB each); beyond,
computed anew."""


Served = tuple[Floats, Floats]
"""beta (k, q) and V (k, q, q) of k participants."""


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
    used = agreed(protocol, source.counts, hyperparameters)
    known, parts = terms(protocol, used), blocks(source.members)
    firsts = list(parallel(partial(first, source, known, len(source.members) <= KEPT), parts))

    def serve(found: Population) -> Iterable[Served]:
        return parallel(partial(second, source, known, found), parts, (one.serving for one in firsts))

    return combined(protocol, used, source.counts, firsts, serve)


def agreed(protocol: Protocol, counts: Ints, given: Hyperparameters | None) -> Hyperparameters:
    """The hyper-parameters that a fit uses (see `fit`), where there is one: participants have `counts` rows.
    Raises NothingToLearn, ValueError."""
    if protocol.algorithm == "fixed_probability":
        raise NothingToLearn("nothing to learn from: the algorithm fixed_probability does not learn")
    if not counts.any():
        raise NothingToLearn("nothing to learn from: no participant has a learning row")
    return _usable(protocol, given or start(protocol))


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What every block is computed with: `L` (p, p) with L L' = Sigma_u, the noise variance `s2`, and `q`
    advantage coefficients."""

    L: Floats
    s2: float
    q: int


def terms(protocol: Protocol, used: Hyperparameters) -> Terms:
    """Those of a fit under the hyper-parameters that were agreed."""
    return Terms(factor(used.sigma_u), used.noise_variance, len(protocol.design.feature_names))


@dataclass(frozen=True, slots=True, eq=False)
class First:
    """What a block contributes: its sums and fingerprint, and, where it is kept, what serving needs."""

    sums: Sums
    fingerprint: bytes
    serving: Serving | None


def first(source: Source, known: Terms, keep: bool, members: Ints) -> First:
    """The first pass over one of the `blocks`; `keep` what the second pass needs of it."""
    block = source.block(members)
    half = halves(block, known.L, known.s2)
    kept = serving(half, known.q) if keep else None
    added = sums(block, half, information(block, half, known.s2), known.s2)
    return First(added, fingerprint(block), kept)


def second(
    source: Source, known: Terms, found: Population, members: Ints, kept: Serving | None = None
) -> Served:
    """The second pass over one of the `blocks`, under the population that the first pass found."""
    if kept is None:
        kept = serving(halves(source.block(members), known.L, known.s2), known.q)
    return slices(kept, found, known.s2)


def combined(
    protocol: Protocol,
    used: Hyperparameters,
    counts: Ints,
    firsts: Sequence[First],
    serve: Callable[[Population], Iterable[Served]],
) -> Fit:
    """The policy from the first pass over all blocks, in their order, and from the second, which `serve`
    does: it goes over everybody with a row by ascending code, some at a time.

    The sums are added in the order of the blocks, so the result does not depend on who computed them."""
    total = reduce(add, (one.sums for one in firsts))
    found = population(total, protocol.prior, used.noise_variance)
    block = _new_participant(found, used.sigma_u, len(protocol.design.feature_names))
    beta, V = _everybody(block, len(counts))
    members, done = np.flatnonzero(counts), 0
    for means, covariances in serve(found):
        those = members[done : done + len(means)]
        beta[those], V[those] = means, covariances
        done += len(means)
    return Fit(
        population_mean=found.mean,
        population_covariance=found.covariance,
        sigma_u=used.sigma_u,
        noise_variance=used.noise_variance,
        block=block,
        beta=beta,
        V=V,
        counts=counts,
        rows=total.rows,
        participants=total.participants,
        log_evidence=found.log_evidence,
        statistics_hash=hashlib.sha256(b"".join(one.fingerprint for one in firsts)).hexdigest(),
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

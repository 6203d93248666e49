"""Policies from learning rows: fit, prior, activation gate, and the size of a change.

A policy is always computed from all rows since the study's start and the original prior. Work is done in
blocks of participants, so the memory needed besides rows and results does not grow with their number;
`parallel` may be an executor's `map`."""

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
"""The number of participants up to which the first pass keeps what the second needs (2 kB each). Beyond it,
the second pass computes these numbers again."""


Served = tuple[Floats, Floats]
"""beta (k, q) and V (k, q, q) of k participants."""


class NothingToLearn(ValueError):
    """There is no learning row, or the algorithm does not learn: the policy stays as it is."""


class Refused(ValueError):
    """A fit must not serve; the message says why. The previous policy keeps serving."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A policy's numbers.

    `population_mean` tp (p,) and `population_covariance` S (p, p); `sigma_u` (p, p) and `noise_variance`, the
    hyper-parameters used; `block`, the advantage block of N(tp, S + Sigma_u) for a participant without rows;
    `beta` (m, q) and `V` (m, q, q), the advantage blocks of all m participants by code; `counts` (m,), the
    number of their rows (a participant without rows has `block` and was not in the fit); `rows` and
    `participants`, the numbers of all rows and of the participants with a row; `log_evidence`;
    `statistics_hash`, in hexadecimal, of exactly the statistics that were learnt from."""

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
    """Return the protocol's starting values: sigma_u I (zero under `pooled`) and the prior's noise
    variance."""
    scale = 0.0 if protocol.algorithm == "pooled" else protocol.prior.sigma_u
    return Hyperparameters(scale * np.eye(len(protocol.prior.mean)), protocol.prior.noise_variance)


def prior_policy(protocol: Protocol) -> Fit:
    """Return policy 0: the prior, with no participant in it."""
    prior, q = protocol.prior, len(protocol.design.feature_names)
    population_prior = Population(np.array(prior.mean), np.diag(prior.sd**2), 0.0)
    hyperparameters = start(protocol)
    return Fit(
        population_mean=population_prior.mean,
        population_covariance=population_prior.covariance,
        sigma_u=hyperparameters.sigma_u,
        noise_variance=hyperparameters.noise_variance,
        block=_new_participant(population_prior, hyperparameters.sigma_u, q),
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
    """Return the policy from `rows` of participants coded 0 to `participants` - 1, under `hyperparameters`
    (None: the protocol's start; under `pooled` only the noise variance is used).

    Raises NothingToLearn, BadRows for rows that cannot be used, ValueError for hyper-parameters that cannot
    be used."""
    return fit_statistics(protocol, arrange(protocol.design, rows, participants), hyperparameters, parallel)


def fit_statistics(
    protocol: Protocol, source: Source, hyperparameters: Hyperparameters | None = None, parallel: Mapper = map
) -> Fit:
    """Return the policy as `fit` does, from statistics: computed from rows, or read as they were stored."""
    agreement = agreed(protocol, source.counts, hyperparameters)
    constants, parts = terms(protocol, agreement), blocks(source.members)
    firsts = list(parallel(partial(first, source, constants, len(source.members) <= KEPT), parts))

    def serve(posterior: Population) -> Iterable[Served]:
        own = (contribution.serving for contribution in firsts)
        return parallel(partial(second, source, constants, posterior), parts, own)

    return combined(protocol, agreement, source.counts, firsts, serve)


def agreed(protocol: Protocol, counts: Ints, hyperparameters: Hyperparameters | None) -> Hyperparameters:
    """Return the hyper-parameters that a fit uses (see `fit`) where participants have `counts` (m,) rows.
    Raises NothingToLearn where there is nothing to fit, ValueError for hyper-parameters that cannot be
    used."""
    if protocol.algorithm == "fixed_probability":
        raise NothingToLearn("nothing to learn from: the algorithm fixed_probability does not learn")
    if not counts.any():
        raise NothingToLearn("nothing to learn from: no participant has a learning row")
    initial = start(protocol)
    proposed = hyperparameters or initial
    if not (math.isfinite(proposed.noise_variance) and proposed.noise_variance > 0):
        raise ValueError("noise_variance: must be a number above 0")
    sigma_u = initial.sigma_u if protocol.algorithm == "pooled" else proposed.sigma_u
    if sigma_u.shape != initial.sigma_u.shape:
        raise ValueError(f"sigma_u: shape {sigma_u.shape} does not fit the protocol")
    return Hyperparameters(sigma_u, float(proposed.noise_variance))


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """The constants with which every block is computed: `L` (p, p) with L L' = Sigma_u, the noise variance
    `s2`, and the number `q` of advantage coefficients."""

    L: Floats
    s2: float
    q: int


def terms(protocol: Protocol, hyperparameters: Hyperparameters) -> Terms:
    """Return the constants of a fit under the hyper-parameters that `agreed` returned."""
    return Terms(
        factor(hyperparameters.sigma_u),
        hyperparameters.noise_variance,
        len(protocol.design.feature_names),
    )


@dataclass(frozen=True, slots=True, eq=False)
class First:
    """A block's contribution in the first pass: its sums and its fingerprint, and, where these are kept, the
    numbers that the second pass needs."""

    sums: Sums
    fingerprint: bytes
    serving: Serving | None


def first(source: Source, constants: Terms, keep: bool, members: Ints) -> First:
    """Compute the first pass over the block of these `members`. With `keep` the result has the numbers that
    the second pass needs."""
    block = source.block(members)
    half = halves(block, constants.L, constants.s2)
    own = serving(half, constants.q) if keep else None
    block_sums = sums(block, half, information(block, half, constants.s2), constants.s2)
    return First(block_sums, fingerprint(block), own)


def second(
    source: Source, constants: Terms, posterior: Population, members: Ints, own: Serving | None = None
) -> Served:
    """Compute the second pass over the block of these `members`, under the population's posterior from the
    first pass. `own` are the numbers that the first pass kept, if it did."""
    if own is None:
        own = serving(halves(source.block(members), constants.L, constants.s2), constants.q)
    return slices(own, posterior, constants.s2)


def combined(
    protocol: Protocol,
    hyperparameters: Hyperparameters,
    counts: Ints,
    firsts: Sequence[First],
    serve: Callable[[Population], Iterable[Served]],
) -> Fit:
    """Return the policy from the contributions of the first pass, in the order of the blocks, and from the
    second pass, which `serve` computes. It yields the results of all participants with a row by ascending
    code, any number at a time."""
    # added in the order of the blocks, so that the sum does not depend on the processes that computed them
    total = reduce(add, (contribution.sums for contribution in firsts))
    posterior = population(total, protocol.prior, hyperparameters.noise_variance)
    block = _new_participant(posterior, hyperparameters.sigma_u, len(protocol.design.feature_names))
    beta, V = np.tile(block.mean, (len(counts), 1)), np.tile(block.covariance, (len(counts), 1, 1))
    members, done = np.flatnonzero(counts), 0
    for means, covariances in serve(posterior):
        codes = members[done : done + len(means)]
        beta[codes], V[codes] = means, covariances
        done += len(means)
    fingerprints = b"".join(contribution.fingerprint for contribution in firsts)
    return Fit(
        population_mean=posterior.mean,
        population_covariance=posterior.covariance,
        sigma_u=hyperparameters.sigma_u,
        noise_variance=hyperparameters.noise_variance,
        block=block,
        beta=beta,
        V=V,
        counts=counts,
        rows=total.rows,
        participants=total.participants,
        log_evidence=posterior.log_evidence,
        statistics_hash=hashlib.sha256(fingerprints).hexdigest(),
    )


def gate(fit: Fit, protocol: Protocol) -> None:
    """Raise Refused unless every number of `fit` is finite, every covariance symmetric and positive
    definite, and every posterior mean within the protocol's bound in absolute value."""
    means = (fit.population_mean, fit.block.mean, fit.beta)
    covariances = (fit.population_covariance, fit.block.covariance, fit.V)
    if not all(np.isfinite(array).all() for array in (*means, *covariances)):
        raise Refused("a number is not finite")
    largest = max(float(np.abs(mean).max(initial=0)) for mean in means)
    if largest > protocol.mean_bound:
        raise Refused(f"a mean of {largest:.6g} is beyond {protocol.mean_bound:.6g}")
    for V in covariances:
        if np.abs(V - V.mT).max(initial=0) > 1e-9 * np.abs(V).max(initial=0):
            raise Refused("a covariance is not symmetric")
        try:
            np.linalg.cholesky(V)
        except np.linalg.LinAlgError:
            raise Refused("a covariance is not positive definite") from None


def largest_change(before: Sequence[Floats], after: Sequence[Floats], protocol: Protocol) -> float:
    """Return the largest absolute change of the probability of action 1, over participants and the design's
    states.

    `before` and `after` are (beta (k, q), V (k, q, q)) of the same k participants in the same order. The
    change is 0 where k is 0."""
    features = protocol.design.features(protocol.design.states())
    old, new = (probability_table(beta, V, protocol, features) for beta, V in (before, after))
    return float(np.abs(new - old).max(initial=0))


def probability_table(beta: Floats, V: Floats, protocol: Protocol, features: Floats) -> Floats:
    """Return the probability of action 1, (k, r), under each of k blocks at each of r rows of `features`
    (r, q)."""
    means = beta @ features.T
    variances = ((features @ V) * features).sum(axis=-1)
    # rounding may push a variance of 0 a little below it
    return probabilities(means, np.maximum(variances, 0), protocol.allocation)


def _new_participant(posterior: Population, sigma_u: Floats, q: int) -> Block:
    return Block(posterior.mean[-q:], (posterior.covariance + sigma_u)[-q:, -q:])

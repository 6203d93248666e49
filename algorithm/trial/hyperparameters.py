"""Hyper-parameters by penalised empirical Bayes: Sigma_u and the noise variance from the evidence.

The rule `penalised_em` finds the maximiser of

    log p(data) - nu0 / 2 [ log|Sigma_u| + sigma_u0 tr(Sigma_u^-1) ] - nu_s / 2 [ log s2 + s0 / s2 ],

s0 the prior's noise variance: the fixed point of EM for a random-effects covariance (Laird and Ware,
Biometrics 38, 1982) with nu0 pseudo-participants of covariance sigma_u0 I and nu_s pseudo-rows of
variance s0. Without them the estimate of a full covariance is badly overfitted with about a hundred
participants; with them it is shrunk downwards. The maximiser is found by L-BFGS on the logarithm of the
diagonal and on the other elements of the Cholesky factor of Sigma_u, and on log s2, which is kept above
the logarithm of 1e-4 s0."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, OptimizeResult, minimize

from algorithm.core.arrays import Floats, Mapper
from algorithm.trial.evidence import Penalised, penalised
from algorithm.trial.learner import start
from algorithm.trial.learning_rows import Rows
from algorithm.trial.posterior import Hyperparameters
from algorithm.trial.protocol import Protocol
from algorithm.trial.sufficient_statistics import Source, Statistics, arrange, blocks

LEAST_PARTICIPANTS = 10
LEAST_ROWS = 100
TOLERANCE = 1e-6
"""The scaled gradient below which a search has converged. It is each derivative over the curvature that this
much data gives, so about the relative change that is still to come."""
_FLOOR = 1e-4
_RANGE = 15.0
_OPTIONS: Any = {"maxcor": 30, "ftol": 0.0, "gtol": TOLERANCE, "maxiter": 2000, "maxfun": 4000}


@dataclass(frozen=True, slots=True)
class Evidence:
    """The course of a hyper-parameter fit: log evidence and penalised log evidence `before` and `after`, the
    penalised one after each accepted step (`path`), the number of evaluations, whether the scaled gradient
    says that it converged, and the numbers of participants and rows it used."""

    before: float
    after: float
    penalised_before: float
    penalised_after: float
    path: tuple[float, ...]
    evaluations: int
    converged: bool
    scaled_gradient: float
    participants: int
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class HyperparameterFit:
    """The `hyperparameters` to use from the next fit on. Where nothing was fitted or the fit was refused,
    they are the previous ones, `accepted` is false and `reason` says why; `evidence` is None where no fit was
    tried."""

    hyperparameters: Hyperparameters
    accepted: bool
    reason: str | None
    evidence: Evidence | None


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The participants that a hyper-parameter fit looks at: their statistics in blocks, their number and the
    number of their rows."""

    blocks: list[Statistics]
    participants: int
    rows: int


def fit_hyperparameters(
    protocol: Protocol,
    rows: Rows,
    participants: int,
    previous: Hyperparameters | None = None,
    parallel: Mapper = map,
) -> HyperparameterFit:
    """Return the hyper-parameters that `protocol`'s rule finds in `rows`, starting from the protocol's
    values.

    `previous` (None: the start) are returned where the rule fixes them, where fewer than 10 participants or
    100 rows exist, and where the fit is refused: not finite, or a lower penalised evidence than at the start.
    Under `pooled` only the noise variance is fitted. Raises BadRows."""
    source = arrange(protocol.design, rows, participants)
    return hyperparameters_of(protocol, source, previous, parallel)


def hyperparameters_of(
    protocol: Protocol, source: Source, previous: Hyperparameters | None = None, parallel: Mapper = map
) -> HyperparameterFit:
    """Return the hyper-parameters as `fit_hyperparameters` does, from statistics instead of rows."""
    unchanged = previous or start(protocol)
    if protocol.hyperparameters.rule == "fixed" or protocol.algorithm == "fixed_probability":
        return HyperparameterFit(unchanged, False, "the protocol fixes the hyper-parameters", None)
    people = sample(protocol, source, parallel)
    if people.participants < LEAST_PARTICIPANTS or people.rows < LEAST_ROWS:
        least = f"needs {LEAST_PARTICIPANTS} participants and {LEAST_ROWS} rows"
        reason = f"{least}, has {people.participants} and {people.rows}"
        return HyperparameterFit(unchanged, False, reason, None)
    try:
        fitted, evidence = _Search(protocol, people, parallel).run()
    except (np.linalg.LinAlgError, FloatingPointError) as error:
        return HyperparameterFit(unchanged, False, f"not computable: {error}", None)
    # "not >=" instead of "<", so that NaN is refused too
    if not evidence.penalised_after >= evidence.penalised_before - 1e-10 * abs(evidence.before):
        return HyperparameterFit(unchanged, False, "the penalised evidence did not rise", evidence)
    return HyperparameterFit(fitted, True, None, evidence)


def sample(protocol: Protocol, source: Source, parallel: Mapper) -> Sample:
    """Return the statistics of all members of `source`, or of a random subsample of the protocol's size: the
    members whose codes have the smallest entries in the raw stream of PCG64 with seed 0. That stream is
    uniform, and the subsample is the same whoever draws it."""
    members, size = source.members, protocol.hyperparameters.subsample
    if len(members) > size:
        keys = np.random.PCG64(0).random_raw(len(source.counts))[members]
        members = np.sort(members[np.argpartition(keys, size)[:size]])
    statistics = list(parallel(source.block, blocks(members)))
    return Sample(statistics, len(members), int(source.counts[members].sum()))


class _Search:
    """The maximisation for one sample, in scaled coordinates x that start at 0.

    L = root(sigma_u) T with T lower triangular, exp(x) on T's diagonal and x below it; log s2 = log s0 +
    x / kappa. The objective is the penalised evidence over m + nu0, and kappa^2 = (N + nu_s)
    / (2 (m + nu0)), so the curvature is about 1 in each coordinate. Under `pooled` x is log s2 alone."""

    def __init__(self, protocol: Protocol, people: Sample, parallel: Mapper) -> None:
        rule = protocol.hyperparameters
        self.protocol, self.sample, self.parallel = protocol, people, parallel
        self.weight = people.participants + rule.nu0
        self.kappa = math.sqrt((people.rows + rule.nu_s) / (2 * self.weight))
        self.p = len(protocol.prior.mean)
        self.places = np.tril_indices(0 if protocol.algorithm == "pooled" else self.p)
        self.diagonal = np.flatnonzero(self.places[0] == self.places[1])

    def run(self) -> tuple[Hyperparameters, Evidence]:
        """Search from the start to where the scaled gradient is below TOLERANCE."""
        x = np.zeros(len(self.places[0]) + 1)
        low, high = self.bounds()
        before, path = self.penalised(x), list[float]()

        # the minimised function is the rise since the start with its sign turned, so that it starts at 0 and
        # small rises keep their digits
        def fall(at: Floats) -> tuple[float, Floats]:
            value, slope = self.scaled(at)
            return before.value / self.weight - value, -slope

        def record(intermediate_result: OptimizeResult) -> None:
            path.append(before.value - self.weight * float(intermediate_result.fun))

        result = minimize(
            fall, x, jac=True, method="L-BFGS-B", bounds=Bounds(low, high), callback=record, options=_OPTIONS
        )
        after = self.penalised(result.x)
        residual = float(np.abs(result.x - np.clip(result.x - result.jac, low, high)).max())
        L, s2 = self.point(result.x)
        return Hyperparameters(L @ L.T, s2), Evidence(
            before=before.evidence,
            after=after.evidence,
            penalised_before=before.value,
            penalised_after=after.value,
            path=tuple(path),
            evaluations=int(result.nfev),
            converged=residual < TOLERANCE,
            scaled_gradient=residual,
            participants=self.sample.participants,
            rows=self.sample.rows,
        )

    def bounds(self) -> tuple[Floats, Floats]:
        """Return the lowest and the highest x: a floor under s2, and limits that keep an exploring step
        finite."""
        low = np.full(len(self.places[0]) + 1, -np.inf)
        low[self.diagonal], low[-1] = -_RANGE, self.kappa * math.log(_FLOOR)
        high = np.full_like(low, np.inf)
        high[self.diagonal], high[-1] = _RANGE, self.kappa * _RANGE
        return low, high

    def point(self, x: Floats) -> tuple[Floats, float]:
        """Return (L, s2) at `x`."""
        T = np.zeros((self.p, self.p))
        T[self.places] = x[:-1]
        T[self.places[0][self.diagonal], self.places[1][self.diagonal]] = np.exp(x[:-1][self.diagonal])
        prior = self.protocol.prior
        return math.sqrt(prior.sigma_u) * T, prior.noise_variance * math.exp(x[-1] / self.kappa)

    def penalised(self, x: Floats) -> Penalised:
        """Return the penalised evidence at `x`. Raises FloatingPointError where it is not finite."""
        L, s2 = self.point(x)
        evidence = penalised(self.protocol, self.sample.blocks, L, s2, self.parallel)
        if not math.isfinite(evidence.value):
            raise FloatingPointError("the evidence is not finite")
        return evidence

    def scaled(self, x: Floats) -> tuple[float, Floats]:
        """Return the penalised evidence at `x` over m + nu0, and its derivatives by `x`."""
        evidence = self.penalised(x)
        slope = math.sqrt(self.protocol.prior.sigma_u) * evidence.L[self.places]
        slope[self.diagonal] *= np.exp(x[self.diagonal])
        return evidence.value / self.weight, np.append(slope, evidence.log_s2 / self.kappa) / self.weight

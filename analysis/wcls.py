"""Causal excursion effects by weighted and centred least squares.

Row t of participant i has an outcome Y, an action A drawn with probability p, moderators f (with an
intercept where one is wanted) and controls g. Where the row is available, the effect of a message at
states like f is f'beta, and (alpha, beta) solve

    sum_it  I W (Y - g'alpha - (A - pt) f'beta) [g ; (A - pt) f] = 0,    W = (pt/p)^A ((1-pt)/(1-p))^(1-A)

with a numerator pt that may depend on the moderators f and on nothing else. beta is right whatever g is;
good controls narrow the intervals. With rows D = [g ; (A - pt) f] and, by participant,

    B_i = sum_t W D D',  s_i = sum_t W D (Y - D'(alpha, beta)),  M = sum_i B_i

the covariance is M^-1 (sum_i u_i u_i') M^-1 with u_i = (I - B_i M^-1)^-1 s_i. That is Mancl and DeRouen's
correction (Biometrics 57, 2001) D_i'W_i (I - H_ii)^-1 r_i with H_ii = D_i M^-1 D_i'W_i, written in matrices
as small as the number of coefficients; without it, u_i = s_i. Single coefficients are referred to t with
m - p - q degrees of freedom (m participants, p moderators, q controls); several at once, beta'V^-1 beta,
to p (m - q - 1) / (m - q - p) times F with p and m - q - p (Liao, Klasnja, Tewari, Murphy, Statistics in
Medicine 35, 2016).

Source: Boruvka, Almirall, Witkiewitz, Murphy, JASA 113, 2018."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from algorithm.core.arrays import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """One coefficient with its standard error, confidence interval and two-sided p-value."""

    value: float
    error: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """`alpha` (q,) of the controls, `beta` (p,) of the moderators, the `covariance` (q + p, q + p) of both
    in this order, and how many participants and rows they come from."""

    alpha: Floats
    beta: Floats
    covariance: Floats
    participants: int
    rows: int

    @property
    def freedom(self) -> int:
        """Degrees of freedom, m - p - q."""
        return self.participants - len(self.alpha) - len(self.beta)

    def effect(self, moderators: Floats, level: float = 0.95) -> Estimate:
        """Return the effect at `moderators` (p,): moderators'beta."""
        variance = moderators @ self.covariance[len(self.alpha) :, len(self.alpha) :] @ moderators
        return estimate(float(moderators @ self.beta), float(np.sqrt(variance)), self.freedom, level)

    def coefficients(self, level: float = 0.95) -> list[Estimate]:
        """Return the estimate of each element of beta."""
        return [self.effect(unit, level) for unit in np.eye(len(self.beta))]

    def joint_p(self) -> float:
        """Return the p-value of "no effect anywhere": all of beta is 0."""
        p, q, m = len(self.beta), len(self.alpha), self.participants
        T2 = float(self.beta @ np.linalg.solve(self.covariance[q:, q:], self.beta))
        return float(stats.f.sf(T2 * (m - q - p) / (p * (m - q - 1)), p, m - q - p))


def estimate(value: float, error: float, freedom: int, level: float = 0.95) -> Estimate:
    """Return `value` with a t interval."""
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(value) / error, freedom)) if error > 0 else float("nan")
    return Estimate(value, error, value - half, value + half, p)


def weights(action: Floats, probability: Floats, numerator: Floats) -> Floats:
    """Return the weight W (n,) of each row."""
    sent, not_sent = numerator / probability, (1 - numerator) / (1 - probability)
    return np.where(action == 1, sent, not_sent)


def numerator_by(cells: Floats, probability: Floats) -> Floats:
    """Return a state-dependent numerator (n,): the mean `probability` over the rows with the same `cells`
    (n, k). The moderators must tell the cells apart."""
    _, where = np.unique(cells, axis=0, return_inverse=True)
    where = where.ravel()
    means = np.bincount(where, weights=probability) / np.bincount(where)
    return np.asarray(means[where], dtype=np.float64)


def fit(
    outcome: Floats,
    action: Floats,
    probability: Floats,
    participant: Ints,
    moderators: Floats,
    controls: Floats,
    numerator: float | Floats | None = None,
    available: Bools | None = None,
    corrected: bool = True,
) -> Effects:
    """Estimate effects from n rows: `outcome`, `action` (0 or 1), `probability` of action 1, `participant`
    (n,), `moderators` (n, p) and `controls` (n, q), both with their intercepts. `numerator` is one number,
    (n,) numbers, or None for the mean probability; rows that are not `available` do not count. `corrected`
    chooses Mancl and DeRouen's correction.

    Raises ValueError where the rows do not determine the coefficients or leave no degree of freedom."""
    counted = np.ones(len(outcome), dtype=bool) if available is None else available
    probability = probability[counted]
    if not len(probability) or probability.min() <= 0 or probability.max() >= 1:
        raise ValueError("rows that count need a probability between 0 and 1, and there must be some")
    top = probability.mean() if numerator is None else numerator
    pt = np.broadcast_to(top, len(outcome))[counted] if np.ndim(top) else np.full(len(probability), top)
    a = action[counted].astype(np.float64)
    D = np.hstack([controls[counted], (a - pt)[:, None] * moderators[counted]])
    W = weights(a, probability, pt)
    coefficients, covariance, m = weighted(D, outcome[counted], W, participant[counted], corrected)
    q = controls.shape[1]
    return Effects(coefficients[:q], coefficients[q:], covariance, m, len(a))


def weighted(
    D: Floats, outcome: Floats, W: Floats, participant: Ints, corrected: bool
) -> tuple[Floats, Floats, int]:
    """Return the coefficients (k,), their covariance (k, k) and the number of participants of weighted least
    squares on D (n, k) with rows clustered by participant. Raises ValueError as `fit` does."""
    codes = np.unique(participant, return_inverse=True)[1]
    m, k = int(codes.max()) + 1, D.shape[1]
    if m <= k:
        raise ValueError(f"{m} participants leave no degree of freedom for {k} coefficients")
    WD = W[:, None] * D
    M = WD.T @ D
    if np.linalg.matrix_rank(M, hermitian=True) < k:
        raise ValueError("the rows do not determine the coefficients: a moderator or control is redundant")
    coefficients = np.linalg.solve(M, WD.T @ outcome)
    scores: Floats = np.zeros((m, k))
    np.add.at(scores, codes, WD * (outcome - D @ coefficients)[:, None])
    if corrected:
        # u_i = (I - B_i M^-1)^-1 s_i instead of s_i, with B_i summed over the rows of each participant
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(m))
        B = np.add.reduceat(WD[order][:, :, None] * D[order][:, None, :], starts, axis=0)
        left = np.eye(k) - np.linalg.solve(M, B.mT).mT
        if np.linalg.cond(left).max() > 1e12:
            problem = "one participant alone determines a coefficient: leave out what only that one has"
            raise ValueError(problem)
        scores = np.asarray(np.linalg.solve(left, scores[:, :, None])[:, :, 0], dtype=np.float64)
    half = np.linalg.solve(M, scores.T)
    return np.asarray(coefficients, dtype=np.float64), half @ half.T, m

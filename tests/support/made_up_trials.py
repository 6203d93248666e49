"""Made-up trials for the tests of this folder."""

import numpy as np

from algorithm.core.arrays import Floats
from algorithm.trial.learning_rows import Rows
from algorithm.trial.posterior import factor
from algorithm.trial.protocol import Protocol, load
from tests.support import dense

MIWAVES = load({"protocol": "miwaves"})


def random_rows(generator: np.random.Generator, counts: list[int], protocol: Protocol = MIWAVES) -> Rows:
    """`counts[i]` rows of participant i with random states, probabilities, actions, and rewards 0 to 3."""
    who = np.repeat(np.arange(len(counts)), counts)
    N = len(who)
    choices = np.array(protocol.design.states())
    act_prob = generator.uniform(0.2, 0.8, N)
    return Rows(
        participant=who,
        states=choices[generator.integers(0, len(choices), N)],
        act_prob=act_prob,
        action=(generator.random(N) < act_prob).astype(np.int64),
        reward=generator.integers(0, 4, N).astype(np.float64),
    )


def model_rows(
    generator: np.random.Generator,
    counts: list[int],
    sigma_u: Floats,
    s2: float,
    protocol: Protocol = MIWAVES,
) -> tuple[Rows, Floats]:
    """Rows whose rewards follow the model itself, theta_pop from the prior, and the participants' theta
    (m, p)."""
    rows = random_rows(generator, counts, protocol)
    prior = protocol.prior
    population = generator.normal(prior.mean, prior.sd)
    theta = population + generator.normal(size=(len(counts), len(population))) @ factor(sigma_u).T
    phi = dense.design_matrix(protocol, rows)
    expected = (phi * theta[rows.participant]).sum(axis=1)
    reward = generator.normal(expected, np.sqrt(s2))
    return Rows(rows.participant, rows.states, rows.act_prob, rows.action, reward), theta


def random_covariance(
    generator: np.random.Generator, p: int, scale: float = 0.01, rank: int | None = None
) -> Floats:
    """A covariance of the given rank (None: full) whose diagonal is about `scale`."""
    root = generator.normal(size=(p, rank or p))
    found: Floats = scale / (rank or p) * root @ root.T
    return found + (0 if rank else 0.1 * scale) * np.eye(p)


def chosen(rows: Rows, keep: object) -> Rows:
    """The rows at `keep`, an index or a mask."""
    return Rows(*(getattr(rows, name)[keep] for name in Rows.__dataclass_fields__))


def recoded(rows: Rows, codes: dense.Codes) -> Rows:
    """The same rows with participant i coded `codes[i]`."""
    return Rows(codes[rows.participant], rows.states, rows.act_prob, rows.action, rows.reward)

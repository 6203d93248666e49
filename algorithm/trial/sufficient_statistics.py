"""Sufficient statistics of participants, block by block.

With design rows phi_t = [f ; pi_t f ; (a_t - pi_t) f] (p = 3 q values) and rewards y_t, participant i
enters the posterior and the evidence through A = sum phi phi', b = sum phi y, c = sum y^2 and the row
count n alone. A participant's statistics are computed from that participant's rows and nothing else, so to
the last bit they do not depend on the other participants of the trial."""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from algorithm.core.arrays import Floats, Ints
from algorithm.trial.designs.design import Design
from algorithm.trial.learning_rows import Rows, check

BLOCK = 256
"""The participants in a block: few enough that their matrices stay in the processor's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """The statistics of k participants with at least one row each: `Ab` (k, p, p + 1), which is A with b as
    its last column, `c` (k,) and `n` (k,)."""

    Ab: Floats
    c: Floats
    n: Ints


class Source(Protocol):
    """The source of a fit's statistics. Participant i has `counts[i]` rows, and `members` are the codes of
    the participants with at least one row."""

    @property
    def counts(self) -> Ints: ...
    @property
    def members(self) -> Ints: ...

    def block(self, members: Ints) -> Statistics:
        """Return the statistics of these members, in their order."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Checked learning rows, sorted by participant: participant i has the `counts[i]` rows from `starts[i]`
    on. `members` are the codes of the participants with at least one row."""

    design: Design
    rows: Rows
    starts: Ints
    counts: Ints
    members: Ints

    def block(self, members: Ints) -> Statistics:
        """Compute the statistics of these members from their rows."""
        return statistics(self, members)


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """The statistics of k participants with at least one row each, as they are stored: `packed` (k, e) holds
    the elements of [A b] that `elements` places, `c` (k,) and `counts` (k,)."""

    packed: Floats
    c: Floats
    counts: Ints

    @property
    def members(self) -> Ints:
        """The codes of all k participants, 0 to k - 1."""
        return np.arange(len(self.counts))

    def block(self, members: Ints) -> Statistics:
        """Return the statistics of these members, unpacked."""
        return Statistics(unpack(self.packed[members]), self.c[members], self.counts[members])


def stored(source: Source) -> Stored:
    """Return the statistics of all members of `source`, packed."""
    parts = [source.block(members) for members in blocks(source.members)]
    return Stored(
        np.concatenate([pack(part.Ab) for part in parts]),
        np.concatenate([part.c for part in parts]),
        np.concatenate([part.n for part in parts]),
    )


def blocks(members: Ints) -> list[Ints]:
    """Cut `members`, the codes of participants, into blocks of at most BLOCK."""
    return [members[start : start + BLOCK] for start in range(0, len(members), BLOCK)]


def arrange(design: Design, rows: Rows, participants: int) -> Trial:
    """Check `rows` and sort them by participant. The rows of each participant keep their order. Raises
    BadRows."""
    check(rows, participants, len(design.state_names))
    if (rows.participant[1:] < rows.participant[:-1]).any():
        order = np.argsort(rows.participant, kind="stable")
        rows = Rows(*(getattr(rows, name)[order] for name in Rows.__dataclass_fields__))
    counts = np.bincount(rows.participant, minlength=participants)
    starts = np.cumsum(counts) - counts
    return Trial(design, rows, starts, counts, np.flatnonzero(counts))


def statistics(trial: Trial, members: Ints) -> Statistics:
    """Return the statistics of `members`, in their order."""
    p = 3 * len(trial.design.feature_names)
    k = len(members)
    block = Statistics(np.empty((k, p, p + 1)), np.empty(k), trial.counts[members])
    # participants with equally many rows are taken together: without padding, the arithmetic of each of them
    # is the same whoever the others are
    for count in np.unique(block.n):
        group = np.flatnonzero(block.n == count)
        data = observations(trial, trial.starts[members[group], None] + np.arange(count))
        block.Ab[group] = data[:, :, :p].mT @ data
        block.c[group] = (data[:, :, p] ** 2).sum(axis=1)
    return block


def observations(trial: Trial, places: Ints) -> Floats:
    """Return [phi ; y], (..., p + 1), of the learning rows at `places` (...)."""
    rows, q = trial.rows, len(trial.design.feature_names)
    features, pi = trial.design.features(rows.states[places]), rows.act_prob[places, None]
    data = np.empty((*places.shape, 3 * q + 1))
    data[..., :q] = features
    np.multiply(pi, features, out=data[..., q : 2 * q])
    np.multiply(rows.action[places, None] - pi, features, out=data[..., 2 * q : 3 * q])
    data[..., -1] = rows.reward[places]
    return data


def fingerprint(block: Statistics) -> bytes:
    """Return the SHA-256 of a block's statistics: for each participant, as little-endian float64, n, c, the
    lower triangle of A by rows, and b."""
    numbers = [block.n[:, None], block.c[:, None], pack(block.Ab)]
    # of a fixed byte order, so that the hash is the same on every machine
    return hashlib.sha256(np.concatenate(numbers, axis=1, dtype="<f8").tobytes()).digest()


def pack(Ab: Floats) -> Floats:
    """Return the packed elements (see `elements`) of k matrices [A b], (k, p, p + 1), as (k, p (p + 3) /
    2)."""
    return Ab.reshape(len(Ab), -1).take(elements(Ab.shape[1]), axis=1)


def unpack(packed: Floats) -> Floats:
    """Return the matrices [A b], (k, p, p + 1), from their packed elements, (k, p (p + 3) / 2)."""
    p = (math.isqrt(9 + 8 * packed.shape[1]) - 3) // 2
    return packed.take(packed_places(p), axis=1)


@lru_cache(maxsize=8)
def elements(p: int) -> Ints:
    """Return the places of the elements to pack in a flattened (p, p + 1) matrix whose first p columns are
    symmetric: the lower triangle of these columns, by rows, and then the last column."""
    rows, columns = np.tril_indices(p)
    return np.concatenate([rows * (p + 1) + columns, np.arange(p) * (p + 1) + p])


@lru_cache(maxsize=8)
def packed_places(p: int) -> Ints:
    """Return the place of each element of such a (p, p + 1) matrix among the packed elements."""
    place = np.empty((p, p + 1), dtype=np.int64)
    place.reshape(-1)[elements(p)] = np.arange(p * (p + 3) // 2)
    rows, columns = np.tril_indices(p, -1)
    place[columns, rows] = place[rows, columns]
    return place

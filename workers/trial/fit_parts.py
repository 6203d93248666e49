"""The fit of a large study in parts, which any worker may do, and which the fitting process puts together.

A part is some whole blocks of participants in one of the fit's two passes. Its numbers are the same whichever
process computes them, and they are added in the order of the participants.
"""

import io
import math
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy.orm import Session
from structlog.contextvars import bind_contextvars

from algorithm.trial import learner
from algorithm.trial.learner import First, Fit, Served, Terms
from algorithm.trial.posterior import Hyperparameters, Population, Sums
from algorithm.trial.protocol import Protocol
from algorithm.trial.sufficient_statistics import blocks
from models.core import locks
from models.core.jobs import Job
from models.core.session import transact
from models.trial import fit_parts, policies, sufficient_statistics
from models.trial.fit_parts import FIRST, SECOND, Basis, Part, Span
from models.trial.sufficient_statistics import Kept, Members
from services.trial import protocols
from settings import settings
from workers.core.celery_app import send
from workers.trial.sufficient_statistics import Reading, source

PAUSE = 0.02  # seconds between two looks at parts that other processes work at
PATIENCE = 60.0  # seconds, with a part whose holder lives and comes to no end
Arrays = dict[str, Any]


class Task(NamedTuple):
    """A part with its input: the statistics of its participants, and the blocks that serve them now.

    before: None in the first pass, which does not compare.
    """

    part: Part
    protocol: Protocol
    kept: Kept
    before: Served | None

    @classmethod
    def read(cls, session: Session, part_id: int) -> "Task | None":
        """Read a part with its input; None where it is done or gone. Raises Vanished."""
        part = fit_parts.open_part(session, part_id)
        if part is None:
            return None
        protocol = protocols.loaded(session, part.protocol_id)
        reading = Reading(part.study_id, protocol.design.feature_version, part.row_seq)
        of_part = sufficient_statistics.between(part.first_participant, part.last_participant)
        kept = reading.kept(session, part.size, of_part)
        before = None
        if part.step == SECOND:
            serving = policies.slim(session, part.study_id, part.policy_id)
            before = policies.blocks(session, serving, kept.participants.tolist())
        return cls(part, protocol, kept, before)

    @property
    def terms(self) -> Terms:
        """The terms of the fit that all its parts have in common."""
        arrays = _unpacked(self.part.terms)
        return Terms(arrays["L"], float(arrays["s2"]), len(self.protocol.design.feature_names))

    def first_pass(self) -> Arrays:
        """Compute the sums of the first pass, one row of each array per block of participants."""
        statistics, terms = source(self.kept), self.terms
        firsts = [learner.first(statistics, terms, False, block) for block in blocks(statistics.members)]
        sums = [first.sums for first in firsts]
        return {
            "Jg": np.array([block.Jg for block in sums]),
            "numbers": np.array([(block.r, block.log_det, block.rows, block.participants) for block in sums]),
            "fingerprints": np.array([list(first.fingerprint) for first in firsts], dtype=np.uint8),
        }

    def second_pass(self) -> Arrays:
        """Compute the blocks that shall serve each participant, and the largest change of a probability.

        The change is nan where it is unknown.
        """
        statistics, terms, arrays = source(self.kept), self.terms, _unpacked(self.part.terms)
        population = Population(arrays["mean"], arrays["covariance"], math.nan)
        served = [
            learner.second(statistics, terms, population, block) for block in blocks(statistics.members)
        ]
        beta, V = (np.concatenate(pieces) for pieces in zip(*served, strict=True))
        change = None
        if self.before is not None:
            change = largest_change(self.before, (beta, V), self.protocol)
        return {"beta": beta, "V": V, "change": math.nan if change is None else change}


@dataclass
class Spread:
    """The parts of one job's fit, and the processes that did them."""

    job: Job
    basis: Basis
    spans: list[Span]
    done_by: set[str] = field(default_factory=set)

    def results(self, step: str, **terms: Any) -> Iterator[Arrays]:
        """Have a step done in parts, and yield their results in the order of the participants.

        1. The parts are stored, and their ids sent to the other workers.
        2. This process does whatever part no other one holds, until all are done.
        3. The results are read.

        Raises LostClaim where a part is gone, since the fit was taken up anew.
        """
        part_ids = transact(fit_parts.add, self.job, self.basis, step, _packed(terms), self.spans)
        for part_id in reversed(part_ids[1:]):  # others begin at the end, and this process at the start
            if not send("fit_part", part_id):  # a broker that hangs would cost a second for each of them
                break
        waited = 0.0
        while unfinished := transact(fit_parts.unfinished, part_ids):
            if sum(take(part_id) for part_id in unfinished):  # a sum tries each of them, as any() would not
                waited = 0.0
            elif waited < PATIENCE:
                time.sleep(PAUSE)
                waited += PAUSE
            else:
                _do(unfinished[0])
        for part_id in part_ids:
            result, done_by = transact(fit_parts.result, part_id)
            self.done_by.add(done_by)
            yield _unpacked(result)


def fit(
    job: Job, basis: Basis, protocol: Protocol, everybody: Members, hyperparameters: Hyperparameters
) -> tuple[Fit, float | None, dict[str, int]]:
    """Fit a large study in parts.

    1. The participants are cut into spans of whole blocks, one for each part.
    2. The first pass gives the sums of each block, which are added to the population.
    3. The second pass gives the blocks that serve each participant under that population.

    Return the policy, its largest change of a probability (None where it is unknown), and the numbers of
    parts and of processes. Raises as `learner.fit_statistics` does, and Vanished and LostClaim.
    """
    used = learner.agreed(protocol, everybody.counts, hyperparameters)
    terms = learner.terms(protocol, used)
    ids, size = everybody.participants, settings().fit_part
    pieces = [ids[start : start + size] for start in range(0, len(ids), size)]
    spread = Spread(job, basis, [Span(int(piece[0]), int(piece[-1]), len(piece)) for piece in pieces])
    changes = list[float]()

    def serve(population: Population) -> Iterator[Served]:
        arrays = {"L": terms.L, "s2": terms.s2, "mean": population.mean, "covariance": population.covariance}
        for result in spread.results(SECOND, **arrays):
            changes.append(float(result["change"]))
            yield result["beta"], result["V"]

    firsts = list[First]()
    for result in spread.results(FIRST, L=terms.L, s2=terms.s2):  # as `Task.first_pass` made it
        per_block = zip(result["Jg"], result["numbers"].tolist(), result["fingerprints"], strict=True)
        firsts += [
            First(Sums(Jg, r, log_det, int(rows), int(participants)), fingerprint.tobytes(), None)
            for Jg, (r, log_det, rows, participants), fingerprint in per_block
        ]
    fitted = learner.combined(protocol, used, everybody.counts, firsts, serve)
    transact(fit_parts.clear, job)
    change = float(np.max(changes))
    numbers = {"count": 2 * len(spread.spans), "processes": len(spread.done_by)}
    return fitted, None if math.isnan(change) else change, numbers


def take(part_id: int) -> bool:
    """Do a part, unless it is done, gone or held by another process; return whether it was done here."""
    with locks.of_part(part_id) as is_ours:
        return is_ours and _do(part_id)


def _do(part_id: int) -> bool:
    """Do a part and store its result; return False where it is done already or gone."""
    task = transact(Task.read, part_id)
    if task is None:
        return False
    bind_contextvars(job_id=task.part.job_id, study_id=task.part.study_id)
    result = _packed(task.first_pass() if task.part.step == FIRST else task.second_pass())
    done_by = f"{socket.gethostname()}:{os.getpid()}"
    transact(fit_parts.finish, part_id, result, done_by)
    return True


def largest_change(before: Served, after: Served, protocol: Protocol) -> float | None:
    """Return the largest change of a randomisation probability from one policy to the next.

    A participant without a block before had the population's. None where stored blocks are damaged.
    """
    try:
        return learner.largest_change(before, after, protocol)
    except ValueError:
        return None


def _packed(arrays: Arrays) -> bytes:
    """Return arrays by name as bytes, exact to the bit."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _unpacked(packed: bytes) -> Arrays:
    """Return the arrays in the bytes that `_packed` made."""
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return dict(arrays)

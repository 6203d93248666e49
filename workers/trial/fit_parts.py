"""The fit of a large study in parts: any worker may do one, and who fits puts them together.

A part is some whole blocks of participants in one of the fit's two passes. Its numbers are the same whoever
computes them, and they are added in the order of the participants.
"""

import io
import math
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
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

PAUSE = 0.02
PATIENCE = 60.0  # seconds, with a part whose holder lives and comes to no end
Arrays = dict[str, Any]


class Task(NamedTuple):
    """A part with what it needs: the statistics of its participants and what serves them now."""

    part: Part
    protocol: Protocol
    kept: Kept
    before: Served | None


@dataclass
class Spread:
    """The parts of one job's fit, and the processes that did them."""

    job: Job
    basis: Basis
    spans: list[Span]
    done_by: set[str] = field(default_factory=set)

    def results(self, step: str, **terms: Any) -> Iterator[Arrays]:
        """Have a step done in parts; what they gave, in the order of the participants."""
        part_ids = transact(partial(self._add, step, _packed(terms)))
        for part_id in reversed(part_ids[1:]):  # others begin at the end, and this process at the start
            if not send("fit_part", part_id):  # a broker that hangs would cost a second for each of them
                break
        _work_off(part_ids)
        for part_id in part_ids:
            result, done_by = transact(partial(fit_parts.result, part_id=part_id))
            self.done_by.add(done_by)
            yield _unpacked(result)

    def _add(self, step: str, terms: bytes, session: Session) -> list[int]:
        return fit_parts.add(session, self.job, self.basis, step, terms, self.spans)


def fit(
    job: Job, basis: Basis, made: Protocol, everybody: Members, given: Hyperparameters
) -> tuple[Fit, float | None, dict[str, int]]:
    """The policy, its largest change of a probability, and how many parts and processes it took.

    Raises as `learner.fit_statistics` does, Vanished, and LostClaim.
    """
    used = learner.agreed(made, everybody.counts, given)
    known = learner.terms(made, used)
    spread, changes = Spread(job, basis, _spans(everybody.participants)), list[float]()
    fixed = {"L": known.L, "s2": known.s2}
    firsts = [one for result in spread.results(FIRST, **fixed) for one in _firsts(result)]

    def serve(found: Population) -> Iterator[Served]:
        for result in spread.results(SECOND, **fixed, mean=found.mean, covariance=found.covariance):
            changes.append(float(result["change"]))
            yield result["beta"], result["V"]

    fitted = learner.combined(made, used, everybody.counts, firsts, serve)
    transact(partial(fit_parts.clear, job=job))
    change = float(np.max(changes))
    told = {"count": 2 * len(spread.spans), "processes": len(spread.done_by)}
    return fitted, None if math.isnan(change) else change, told


def take(part_id: int) -> bool:
    """Do a part unless somebody does it, did it, or nobody needs it any more; whether it was done here."""
    with locks.of_part(part_id) as ours:
        return ours and _do(part_id)


def largest_change(before: Served, after: Served, made: Protocol) -> float | None:
    """Of the randomisation probabilities; who is new had the population's. None where blocks are damaged."""
    try:
        return learner.largest_change(before, after, made)
    except ValueError:
        return None


def _spans(participants: Any) -> list[Span]:
    """`participants`, ids in ascending order, in parts of whole blocks."""
    size = settings().fit_part
    pieces = [participants[start : start + size] for start in range(0, len(participants), size)]
    return [Span(int(piece[0]), int(piece[-1]), len(piece)) for piece in pieces]


def _work_off(part_ids: list[int]) -> None:
    """Do what nobody does, until all is done. What a dead worker held is free again."""
    waited = 0.0
    while left := transact(partial(fit_parts.unfinished, part_ids=part_ids)):
        if sum(take(part_id) for part_id in left):  # each of them is tried
            waited = 0.0
        elif waited < PATIENCE:
            time.sleep(PAUSE)
            waited += PAUSE
        else:
            _do(left[0])


def _do(part_id: int) -> bool:
    task = transact(partial(_read, part_id=part_id))
    if task is None:
        return False
    bind_contextvars(job_id=task.part.job_id, study_id=task.part.study_id)
    result = _packed(_first(task) if task.part.step == FIRST else _second(task))
    done_by = f"{socket.gethostname()}:{os.getpid()}"
    transact(partial(fit_parts.finish, part_id=part_id, result=result, done_by=done_by))
    return True


def _read(session: Session, part_id: int) -> Task | None:
    part = fit_parts.open_part(session, part_id)
    if part is None:
        return None
    protocol = protocols.loaded(session, part.protocol_id)
    reading = Reading(part.study_id, protocol.design.feature_version, part.row_seq)
    kept = reading.kept(
        session, part.size, sufficient_statistics.between(part.first_participant, part.last_participant)
    )
    before = None
    if part.step == SECOND:
        serving = policies.slim(session, part.study_id, part.policy_id)
        before = policies.blocks(session, serving, kept.participants.tolist())
    return Task(part, protocol, kept, before)


def _first(task: Task) -> Arrays:
    """What the first pass gives, block by block."""
    known, learnt = _terms(task), source(task.kept)
    found = [learner.first(learnt, known, False, members) for members in blocks(learnt.members)]
    added = [one.sums for one in found]
    return {
        "Jg": np.array([one.Jg for one in added]),
        "numbers": np.array([(one.r, one.log_det, one.rows, one.participants) for one in added]),
        "fingerprints": np.array([list(one.fingerprint) for one in found], dtype=np.uint8),
    }


def _firsts(result: Arrays) -> list[First]:
    """The same again as it was, block by block."""
    each = zip(result["Jg"], result["numbers"].tolist(), result["fingerprints"], strict=True)
    return [
        First(Sums(Jg, r, log_det, int(rows), int(people)), print_.tobytes(), None)
        for Jg, (r, log_det, rows, people), print_ in each
    ]


def _second(task: Task) -> Arrays:
    """What serves each participant, and the largest change of a probability (not a number: unknown)."""
    known, learnt = _terms(task), source(task.kept)
    terms = _unpacked(task.part.terms)
    found = Population(terms["mean"], terms["covariance"], math.nan)
    served = [learner.second(learnt, known, found, members) for members in blocks(learnt.members)]
    beta, V = (np.concatenate(arrays) for arrays in zip(*served, strict=True))
    change = largest_change(task.before, (beta, V), task.protocol) if task.before is not None else None
    return {"beta": beta, "V": V, "change": math.nan if change is None else change}


def _terms(task: Task) -> Terms:
    terms = _unpacked(task.part.terms)
    return Terms(terms["L"], float(terms["s2"]), len(task.protocol.design.feature_names))


def _packed(arrays: Arrays) -> bytes:
    """Arrays by name, exact to the bit."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _unpacked(packed: bytes) -> Arrays:
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return dict(arrays)

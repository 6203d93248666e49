"""Refit: one study's policy, computed anew from all its rows and the original prior."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy.orm import Session

from algorithm.trial import learner
from algorithm.trial.hyperparameters import hyperparameters_of
from algorithm.trial.learner import Fit, NothingToLearn, Refused
from algorithm.trial.posterior import Hyperparameters
from algorithm.trial.protocol import Protocol
from algorithm.trial.sufficient_statistics import Stored
from models.core import audit, jobs, studies
from models.core.audit import SERVICE, Actor
from models.core.jobs import Job
from models.core.session import transact
from models.core.studies import Study
from models.trial import learning_rows, policies, sufficient_statistics
from models.trial import protocols as versions
from models.trial.acts import TrialAct
from models.trial.fit_parts import Basis
from models.trial.policies import Policy, Stamp
from models.trial.sufficient_statistics import Kept, Members
from services.trial import protocols
from settings import settings
from version import code_version
from workers.core.celery_app import log, send
from workers.core.claims import give_back, guarded
from workers.trial import fit_parts
from workers.trial.sufficient_statistics import Reading, Table, Vanished, anew, source

FROZEN = "learning is frozen: the policy that serves goes on serving"


class Snapshot(NamedTuple):
    """What a fit learns from: the protocol, the rows up to `row_seq`, and the policy that serves now.

    changed: all rows of the participants who have new ones. others: those whose statistics stand.
    corrections: how often participants' outcomes were corrected when the rows were collected.
    """

    protocol_id: int
    protocol: Protocol
    row_seq: int
    corrections: dict[int, int]
    changed: learning_rows.Rows
    others: Members
    serving: Policy


class Fitted(NamedTuple):
    """A policy that may serve, whom it was learnt from, and how it came about."""

    policy: Fit
    members: list[int]
    report: dict[str, Any]


def run(job_id: int) -> None:
    """Claim, collect the rows, fit with no transaction open, store and activate, send the next one."""
    job = transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC)))
    if job is None:
        return
    guarded(job, lambda: _refit(job))
    waiting = transact(lambda session: jobs.queued_refit(session, job.study_id))
    if waiting is not None and waiting.run_after <= datetime.now(UTC):
        send(jobs.REFIT, waiting.id)


def _refit(job: Job) -> None:
    study = transact(lambda session: studies.by_id(session, job.study_id))
    if study.learning_frozen:
        _finish(job, study.policy_id, FROZEN)
        return
    collected = transact(lambda session: _collect(session, job.study_id))
    snapshot = transact(lambda session: _snapshot(session, job.study_id, *collected))
    is_learnt = snapshot.serving.row_count > 0 and snapshot.serving.row_seq == snapshot.row_seq
    if is_learnt and not job.hyperparameters:
        _finish(job, snapshot.serving.policy_id, "the serving policy contains every row")
        return
    try:
        fitted = _fit(job, snapshot)
    except Vanished as vanished:
        transact(give_back, job, str(vanished))
    except NothingToLearn as nothing:
        transact(partial(_learn_nothing, job, snapshot, str(nothing)))
    except (Refused, np.linalg.LinAlgError, ValueError) as refused:
        _refuse(job, str(refused))
    else:
        if transact(lambda session: _store(session, job, snapshot, fitted)):
            log.info("policy activated", job_id=job.id, study_id=job.study_id, rows=fitted.policy.rows)


def _up_to_date(job: Job, snapshot: Snapshot) -> Members:
    """Whom to learn from. The statistics of whoever has new rows are made from them and stored.

    They are right whatever becomes of the fit, and parts of it read them. Only who has the claim may store
    them: no older ones replace newer.
    """
    new = anew(snapshot.protocol.design, snapshot.changed)
    if len(new.participants):
        transact(partial(_keep, job, snapshot, new))
    return Members(new.participants, new.counts).together(snapshot.others)


def _keep(job: Job, snapshot: Snapshot, new: Kept, session: Session) -> None:
    jobs.hold(session, job)
    features = snapshot.protocol.design.feature_version
    sufficient_statistics.keep(session, job.study_id, features, snapshot.row_seq, new, snapshot.corrections)


def _fit(job: Job, snapshot: Snapshot) -> Fitted:
    """The new policy and how it came about.

    Raises NothingToLearn, Refused, ValueError, LinAlgError, Vanished.
    """
    began = time.perf_counter()
    everybody = _up_to_date(job, snapshot)
    reading = Reading(job.study_id, snapshot.protocol.design.feature_version, snapshot.row_seq)
    used, report = _used_so_far(snapshot), dict[str, Any]()
    known = _known(reading, everybody)
    if job.hyperparameters:
        found = hyperparameters_of(snapshot.protocol, known, used)
        used = found.hyperparameters
        report["hyperparameters"] = {
            "accepted": found.accepted,
            "reason": found.reason,
            "evidence": asdict(found.evidence) if found.evidence else None,
        }
    if isinstance(known, Stored):
        fitted = learner.fit_statistics(snapshot.protocol, known, used)
        change = _largest_change(snapshot, everybody, fitted)
    else:
        basis = Basis(snapshot.protocol_id, snapshot.row_seq, snapshot.serving.policy_id)
        fitted, change, report["parts"] = fit_parts.fit(job, basis, snapshot.protocol, everybody, used)
    learner.gate(fitted, snapshot.protocol)
    report["log_evidence"] = fitted.log_evidence
    report["largest_change"] = change
    report["fit_seconds"] = round(time.perf_counter() - began, 4)
    return Fitted(fitted, everybody.participants.tolist(), report)


def _known(reading: Reading, everybody: Members) -> Stored | Table:
    """Statistics in memory, where one part holds them all."""
    size = len(everybody.participants)
    if size > settings().fit_part:
        return Table(reading, everybody)
    return source(transact(lambda session: reading.kept(session, size)))


def _largest_change(snapshot: Snapshot, everybody: Members, fitted: Fit) -> float | None:
    members = everybody.participants.tolist()
    before = transact(lambda session: policies.blocks(session, snapshot.serving, members))
    return fit_parts.largest_change(before, (fitted.beta, fitted.V), snapshot.protocol)


def _collect(session: Session, study_id: int) -> tuple[int, dict[int, int]]:
    study = studies.locked(session, study_id)
    protocol = protocols.in_force(session, study_id)
    schedule, features = protocol.schedule, protocol.design.feature_version
    row_seq = learning_rows.collect(session, study, schedule.outcome_lag, features)
    return row_seq, sufficient_statistics.corrections(session, study_id)


def _snapshot(session: Session, study_id: int, row_seq: int, corrections: dict[int, int]) -> Snapshot:
    study = studies.by_id(session, study_id)
    version = versions.in_force(session, study)
    protocol = protocols.loaded(session, version.id)
    features = protocol.design.feature_version
    changed = sufficient_statistics.changed(session, study_id, features, row_seq)
    return Snapshot(
        version.id,
        protocol,
        row_seq,
        corrections,
        learning_rows.snapshot(session, study_id, row_seq, changed, features),
        sufficient_statistics.members(session, study_id, features, row_seq, without=changed),
        policies.slim(session, study_id, study.policy_id),
    )


def _used_so_far(snapshot: Snapshot) -> Hyperparameters:
    """Those of the serving policy: they change only when a fit of their own was asked for."""
    p = len(snapshot.serving.mean)
    sigma_u = np.array(snapshot.serving.sigma_u).reshape(p, p)
    return Hyperparameters(sigma_u, snapshot.serving.noise_variance)


def _is_overtaken(session: Session, job: Job, snapshot: Snapshot, study: Study) -> bool:
    """Whether learning was frozen, or another policy activated, during the fit: the job ends without one."""
    if not study.learning_frozen and study.policy_id == snapshot.serving.policy_id:
        return False
    why = FROZEN if study.learning_frozen else "another policy was activated meanwhile"
    jobs.finish(session, job, datetime.now(UTC), {"policy_id": study.policy_id, "note": why})
    return True


def _learn_nothing(job: Job, snapshot: Snapshot, why: str, session: Session) -> None:
    """Without rows the policy that serves stays; where all of its own were removed, the prior serves."""
    study = studies.locked(session, job.study_id)
    if _is_overtaken(session, job, snapshot, study):
        return
    if snapshot.serving.row_count:
        before, study.policy_id = {"policy_id": study.policy_id}, policies.prior(session, study.id)
        audit.note(
            session,
            Actor(study.id, role=SERVICE),
            TrialAct.ACTIVATE,
            "all rows that the policy was learnt from are removed",
            before=before,
            after={"policy_id": study.policy_id},
        )
    jobs.finish(session, job, datetime.now(UTC), {"policy_id": study.policy_id, "note": why})


def _store(session: Session, job: Job, snapshot: Snapshot, fitted: Fitted) -> bool:
    """Insert the policy, let it serve, finish the job, all or nothing.

    False where learning was frozen, or another policy was activated, in the meantime.
    """
    study = studies.locked(session, job.study_id)
    if _is_overtaken(session, job, snapshot, study):
        return False
    stamp = Stamp(
        protocol_id=snapshot.protocol_id,
        protocol_hash=snapshot.protocol.digest,
        algorithm=snapshot.protocol.algorithm,
        feature_version=snapshot.protocol.design.feature_version,
        code_version=code_version(),
        row_seq=snapshot.row_seq,
    )
    advantage = (fitted.policy.block.mean, fitted.policy.block.covariance)
    policy = policies.add(session, study.id, stamp, fitted.policy, advantage, fitted.members, fitted.report)
    study.policy_id = policy.policy_id
    why = fitted.report.get("hyperparameters", {}).get("reason")
    note = {"note": f"the hyper-parameters stay: {why}"} if why else {}
    jobs.finish(session, job, datetime.now(UTC), {"policy_id": policy.policy_id} | note)
    return True


def _finish(job: Job, policy_id: int, note: str) -> None:
    result = {"policy_id": policy_id, "note": note}
    transact(lambda session: jobs.finish(session, job, datetime.now(UTC), result))


def _refuse(job: Job, reason: str) -> None:
    log.warning("fit refused", job_id=job.id, study_id=job.study_id, reason=reason)
    transact(lambda session: jobs.fail(session, job, datetime.now(UTC), None, reason))

"""Refit: one study's policy, computed anew from all its rows and the original prior."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy.orm import Session

from algorithm import learner, protocol
from algorithm.hyperparameters import hyperparameters_of
from algorithm.learner import Fit, NothingToLearn, Refused
from algorithm.posterior import Hyperparameters
from algorithm.protocol import Protocol
from models import audit, jobs, policies, rows, statistics, studies
from models.jobs import Job
from models.policies import Policy, Stamp
from models.session import transact
from models.statistics import Kept
from models.studies import Study
from version import code_version
from workers.app import log, send
from workers.claims import guarded
from workers.statistics import Gathered, gather

FROZEN = "learning is frozen: the policy that serves goes on serving"


class Snapshot(NamedTuple):
    """What a fit learns from: the protocol, the rows up to `row_seq`, and the policy that serves now.

    changed: all rows of the participants who have new ones. kept: the statistics of the others.
    corrections: how often participants' outcomes were corrected when the rows were collected.
    """

    protocol_id: int
    protocol: Protocol
    row_seq: int
    corrections: dict[int, int]
    changed: rows.Rows
    kept: Kept
    serving: Policy


class Fitted(NamedTuple):
    """A policy that may serve, the statistics it made anew on the way, and how it came about."""

    policy: Fit
    statistics: Gathered
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
        fitted = _fit(snapshot, job.hyperparameters)
    except NothingToLearn as nothing:
        transact(partial(_learn_nothing, job, snapshot, str(nothing)))
    except (Refused, np.linalg.LinAlgError, ValueError) as refused:
        _refuse(job, str(refused))
    else:
        if transact(lambda session: _store(session, job, snapshot, fitted)):
            log.info("policy activated", job_id=job.id, study_id=job.study_id, rows=fitted.policy.rows)


def _fit(snapshot: Snapshot, hyperparameters: bool) -> Fitted:
    """The new policy and how it came about. Raises NothingToLearn, Refused, ValueError, LinAlgError."""
    began = time.perf_counter()
    gathered = gather(snapshot.protocol.design, snapshot.changed, snapshot.kept)
    used, source = _used_so_far(snapshot), gathered.source()
    report: dict[str, Any] = {}
    if hyperparameters:
        found = hyperparameters_of(snapshot.protocol, source, used)
        used = found.hyperparameters
        report["hyperparameters"] = {
            "accepted": found.accepted,
            "reason": found.reason,
            "evidence": asdict(found.evidence) if found.evidence else None,
        }
    fitted = learner.fit_statistics(snapshot.protocol, source, used)
    learner.gate(fitted, snapshot.protocol)
    report["log_evidence"] = fitted.log_evidence
    report["largest_change"] = _largest_change(snapshot, gathered, fitted)
    report["fit_seconds"] = round(time.perf_counter() - began, 4)
    return Fitted(fitted, gathered, report)


def _largest_change(snapshot: Snapshot, gathered: Gathered, fitted: Fit) -> float | None:
    """Of the randomisation probabilities; who is new had the population's. None where blocks are damaged."""
    members = gathered.everybody.participants.tolist()
    before = transact(lambda session: policies.blocks(session, snapshot.serving, members))
    try:
        return learner.largest_change(before, (fitted.beta, fitted.V), snapshot.protocol)
    except ValueError:
        return None


def _collect(session: Session, study_id: int) -> tuple[int, dict[int, int]]:
    study = studies.locked(session, study_id)
    version = studies.protocol(session, study)
    made = protocol.stored(version.document, version.hash)
    row_seq = rows.collect(session, study, made.schedule.outcome_lag, made.design.feature_version)
    return row_seq, statistics.corrections(session, study_id)


def _snapshot(session: Session, study_id: int, row_seq: int, corrections: dict[int, int]) -> Snapshot:
    study = studies.by_id(session, study_id)
    version = studies.protocol(session, study)
    made = protocol.stored(version.document, version.hash)
    serving = policies.numbered(session, study_id, study.policy_id)
    if serving is None:
        raise LookupError(f"study {study_id} has no policy {study.policy_id}")
    features = made.design.feature_version
    changed = statistics.changed(session, study_id, features, row_seq)
    return Snapshot(
        version.id,
        made,
        row_seq,
        corrections,
        rows.snapshot(session, study_id, row_seq, changed, features),
        statistics.kept(session, study_id, features, row_seq, without=changed),
        serving,
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
            study.id,
            None,
            audit.ACTIVATE,
            "all rows that the policy was learnt from are removed",
            before=before,
            after={"policy_id": study.policy_id},
            role=audit.SERVICE,
        )
    jobs.finish(session, job, datetime.now(UTC), {"policy_id": study.policy_id, "note": why})


def _store(session: Session, job: Job, snapshot: Snapshot, fitted: Fitted) -> bool:
    """Insert the policy with the statistics it is made of, let it serve, finish the job, all or nothing.

    False where learning was frozen, or another policy was activated, in the meantime.
    """
    study = studies.locked(session, job.study_id)
    if _is_overtaken(session, job, snapshot, study):
        return False
    features = snapshot.protocol.design.feature_version
    stamp = Stamp(
        protocol_id=snapshot.protocol_id,
        protocol_hash=snapshot.protocol.digest,
        algorithm=snapshot.protocol.algorithm,
        feature_version=features,
        code_version=code_version(),
        row_seq=snapshot.row_seq,
    )
    new, everybody = fitted.statistics
    advantage = (fitted.policy.block.mean, fitted.policy.block.covariance)
    members = everybody.participants.tolist()
    policy = policies.add(session, study.id, stamp, fitted.policy, advantage, members, fitted.report)
    statistics.keep(session, study.id, features, snapshot.row_seq, new, snapshot.corrections)
    study.policy_id = policy.policy_id
    jobs.finish(session, job, datetime.now(UTC), {"policy_id": policy.policy_id})
    return True


def _finish(job: Job, policy_id: int, note: str) -> None:
    result = {"policy_id": policy_id, "note": note}
    transact(lambda session: jobs.finish(session, job, datetime.now(UTC), result))


def _refuse(job: Job, reason: str) -> None:
    log.warning("fit refused", job_id=job.id, study_id=job.study_id, reason=reason)
    transact(lambda session: jobs.fail(session, job, datetime.now(UTC), None, reason))

"""Refit: one study's policy, computed anew from all its rows and the original prior."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy.orm import Session

from algorithm import learner, protocol
from algorithm.hyperparameters import fit_hyperparameters
from algorithm.learner import Fit, NothingToLearn, Refused
from algorithm.posterior import Hyperparameters
from algorithm.protocol import Protocol
from algorithm.rows import Rows
from models import jobs, policies, rows, studies
from models.jobs import Job
from models.policies import Array, Policy, Stamp
from models.session import transact
from version import code_version
from workers.app import log, send
from workers.claims import guarded


class Snapshot(NamedTuple):
    """What a fit learns from: the protocol, the rows up to `row_seq`, and the policy that serves now.

    blocks: what that policy serves the participants with, means (m, q) and covariances (m, q, q).
    """

    protocol_id: int
    protocol: Protocol
    row_seq: int
    participants: list[int]
    rows: Rows
    serving: Policy
    blocks: tuple[Array, Array]


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
    row_seq = transact(lambda session: _collect(session, job.study_id))
    snapshot = transact(lambda session: _snapshot(session, job.study_id, row_seq))
    if snapshot.serving.row_seq == row_seq and not job.hyperparameters:
        _finish(job, snapshot.serving.policy_id, "the serving policy contains every row")
        return
    try:
        fitted, report = _fit(snapshot, job.hyperparameters)
    except NothingToLearn as nothing:
        _finish(job, snapshot.serving.policy_id, str(nothing))
    except (Refused, np.linalg.LinAlgError, ValueError) as refused:
        _refuse(job, str(refused))
    else:
        transact(lambda session: _store(session, job, snapshot, fitted, report))
        log.info("policy activated", job_id=job.id, study_id=job.study_id, rows=fitted.rows)


def _fit(snapshot: Snapshot, hyperparameters: bool) -> tuple[Fit, dict[str, Any]]:
    """The new policy and how it came about. Raises NothingToLearn, Refused, ValueError, LinAlgError."""
    began = time.perf_counter()
    used = _used_so_far(snapshot)
    report: dict[str, Any] = {}
    if hyperparameters:
        found = fit_hyperparameters(snapshot.protocol, snapshot.rows, len(snapshot.participants), used)
        used = found.hyperparameters
        report["hyperparameters"] = {
            "accepted": found.accepted,
            "reason": found.reason,
            "evidence": asdict(found.evidence) if found.evidence else None,
        }
    fitted = learner.fit(snapshot.protocol, snapshot.rows, len(snapshot.participants), used)
    learner.gate(fitted, snapshot.protocol)
    report["log_evidence"] = fitted.log_evidence
    report["largest_change"] = learner.largest_change(
        snapshot.blocks, (fitted.beta, fitted.V), snapshot.protocol
    )
    report["fit_seconds"] = round(time.perf_counter() - began, 4)
    return fitted, report


def _collect(session: Session, study_id: int) -> int:
    study = studies.locked(session, study_id)
    document = studies.protocol(session, study).document
    return rows.collect(session, study, document["schedule"]["outcome_lag"])


def _snapshot(session: Session, study_id: int, row_seq: int) -> Snapshot:
    study = studies.by_id(session, study_id)
    version = studies.protocol(session, study)
    serving = policies.numbered(session, study_id, study.policy_id)
    if serving is None:
        raise LookupError(f"study {study_id} has no policy {study.policy_id}")
    found = rows.snapshot(session, study_id, row_seq)
    members = found.participants.tolist()
    return Snapshot(
        version.id,
        protocol.load(version.document),
        row_seq,
        members,
        Rows(found.codes, found.states, found.act_prob, found.action, found.outcome),
        serving,
        policies.blocks(session, serving, members),
    )


def _used_so_far(snapshot: Snapshot) -> Hyperparameters:
    """Those of the serving policy: they change only when a fit of their own was asked for."""
    p = len(snapshot.serving.mean)
    sigma_u = np.array(snapshot.serving.sigma_u).reshape(p, p)
    return Hyperparameters(sigma_u, snapshot.serving.noise_variance)


def _store(session: Session, job: Job, snapshot: Snapshot, fitted: Fit, report: dict[str, Any]) -> None:
    """Insert the policy, let it serve, and finish the job, all or nothing."""
    study = studies.locked(session, job.study_id)
    stamp = Stamp(
        protocol_id=snapshot.protocol_id,
        protocol_hash=snapshot.protocol.digest,
        algorithm=snapshot.protocol.algorithm,
        feature_version=snapshot.protocol.design.feature_version,
        code_version=code_version(),
        row_seq=snapshot.row_seq,
    )
    advantage = (fitted.block.mean, fitted.block.covariance)
    policy = policies.add(session, study.id, stamp, fitted, advantage, snapshot.participants, report)
    study.policy_id = policy.policy_id
    jobs.finish(session, job, datetime.now(UTC), {"policy_id": policy.policy_id})


def _finish(job: Job, policy_id: int, note: str) -> None:
    result = {"policy_id": policy_id, "note": note}
    transact(lambda session: jobs.finish(session, job, datetime.now(UTC), result))


def _refuse(job: Job, reason: str) -> None:
    log.warning("fit refused", job_id=job.id, study_id=job.study_id, reason=reason)
    transact(lambda session: jobs.fail(session, job, datetime.now(UTC), None, reason))

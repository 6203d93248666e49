"""Refit: a new policy for one study, computed from all its rows and the original prior."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
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
from models.trial.sufficient_statistics import Members
from services.trial import protocols
from settings import settings
from version import code_version
from workers.core.celery_app import log, send
from workers.core.claims import give_back, guarded
from workers.trial import fit_parts
from workers.trial.sufficient_statistics import Reading, Table, Vanished, from_rows, source

FROZEN = "learning is frozen: the policy that serves goes on serving"


class Snapshot(NamedTuple):
    """The input of a fit: the protocol, the rows up to `row_seq`, and the policy that serves now.

    corrections: how often each participant's outcomes had been corrected when the rows were collected.
    changed: all rows of the participants who have new ones. others: the participants whose stored statistics
    are up to date.
    """

    protocol_id: int
    protocol: Protocol
    row_seq: int
    corrections: dict[int, int]
    changed: learning_rows.Rows
    others: Members
    serving: Policy

    @classmethod
    def read(cls, session: Session, study_id: int, row_seq: int, corrections: dict[int, int]) -> "Snapshot":
        """Read the input of a fit of the rows up to `row_seq`."""
        study = studies.by_id(session, study_id)
        version = versions.in_force(session, study)
        protocol = protocols.loaded(session, version.id)
        features = protocol.design.feature_version
        changed = sufficient_statistics.changed(session, study_id, features, row_seq)
        return cls(
            version.id,
            protocol,
            row_seq,
            corrections,
            learning_rows.snapshot(session, study_id, row_seq, changed, features),
            sufficient_statistics.members(session, study_id, features, row_seq, without=changed),
            policies.slim(session, study_id, study.policy_id),
        )

    @property
    def is_learnt(self) -> bool:
        """Whether the serving policy was learnt from exactly these rows."""
        return self.serving.row_count > 0 and self.serving.row_seq == self.row_seq


class Fitted(NamedTuple):
    """A policy that may serve, the ids of the participants it was learnt from, and the report of its fit."""

    policy: Fit
    members: list[int]
    report: dict[str, Any]


def run(job_id: int) -> None:
    """Learn a new policy for a study and let it serve.

    1. Claim the job; a study has at most one fit running.
    2. Stop if learning is frozen.
    3. Collect the learning rows, then read the snapshot that the fit learns from.
    4. Stop if the serving policy contains every row, unless new hyper-parameters are wanted.
    5. Store the statistics of participants with new rows, and fit with no transaction open.
    6. Store the policy and let it serve, if nothing else was activated meanwhile. A fit that is refused fails
       the job, and the serving policy stays.
    7. Send the study's next refit if it is due: none could be claimed while this one was running.
    """
    job = transact(jobs.claim, job_id, datetime.now(UTC))
    if job is None:
        return
    guarded(job, lambda: _refit(job))
    queued = transact(jobs.queued_refit, job.study_id)
    if queued is not None and queued.run_after <= datetime.now(UTC):
        send(jobs.REFIT, queued.id)


def _refit(job: Job) -> None:
    """Do steps 2 to 6 of `run`."""
    study = transact(studies.by_id, job.study_id)
    if study.learning_frozen:
        transact(_finish, job, study.policy_id, FROZEN)
        return
    # two transactions: the rows get their numbers while the study is locked, and a long read locks nothing
    row_seq, corrections = transact(_collect, job.study_id)
    snapshot = transact(Snapshot.read, job.study_id, row_seq, corrections)
    if snapshot.is_learnt and not job.hyperparameters:
        transact(_finish, job, snapshot.serving.policy_id, "the serving policy contains every row")
        return
    try:
        fitted = fit(job, snapshot)
    except Vanished as vanished:
        transact(give_back, job, str(vanished))
    except NothingToLearn as nothing:
        transact(_serve_without_rows, job, snapshot, str(nothing))
    except (Refused, np.linalg.LinAlgError, ValueError) as refused:
        log.warning("fit refused", job_id=job.id, study_id=job.study_id, reason=str(refused))
        transact(jobs.fail, job, datetime.now(UTC), None, str(refused))
    else:
        if transact(_store, job, snapshot, fitted):
            log.info("policy activated", job_id=job.id, study_id=job.study_id, rows=fitted.policy.rows)


def _collect(session: Session, study_id: int) -> tuple[int, dict[int, int]]:
    """Collect a study's new learning rows; return the number of its last row, and `Snapshot.corrections`."""
    study = studies.locked(session, study_id)
    protocol = protocols.in_force(session, study_id)
    features = protocol.design.feature_version
    row_seq = learning_rows.collect(session, study, protocol.schedule.outcome_lag, features)
    return row_seq, sufficient_statistics.corrections(session, study_id)


def up_to_date(job: Job, snapshot: Snapshot) -> Members:
    """Bring the stored statistics of a study up to date, and return the participants to learn from.

    Raises LostClaim.
    """
    design = snapshot.protocol.design
    new = from_rows(design, snapshot.changed)

    def keep(session: Session) -> None:
        # only the holder of the claim may store them, or older statistics could replace newer ones
        jobs.hold(session, job)
        version, row_seq = design.feature_version, snapshot.row_seq
        sufficient_statistics.keep(session, job.study_id, version, row_seq, new, snapshot.corrections)

    if len(new.participants):
        # before the fit and whatever becomes of it: they are right in any case, and its parts read them
        transact(keep)
    return Members(new.participants, new.counts).together(snapshot.others)


def fit(job: Job, snapshot: Snapshot) -> Fitted:
    """Compute the new policy and the report of its fit.

    Raises NothingToLearn, Refused, ValueError, LinAlgError, Vanished.
    """
    began = time.perf_counter()
    everybody = up_to_date(job, snapshot)
    protocol, serving, ids = snapshot.protocol, snapshot.serving, everybody.participants.tolist()
    reading = Reading(job.study_id, protocol.design.feature_version, snapshot.row_seq)
    # where one part would hold all participants, their statistics fit into memory
    is_small = len(ids) <= settings().fit_part
    statistics = source(transact(reading.kept, len(ids))) if is_small else Table(reading, everybody)
    # the hyper-parameters stay those of the serving policy unless the job asks for new ones
    p = len(serving.mean)
    used = Hyperparameters(np.array(serving.sigma_u).reshape(p, p), serving.noise_variance)
    report = dict[str, Any]()
    if job.hyperparameters:
        search = hyperparameters_of(protocol, statistics, used)
        used = search.hyperparameters
        report["hyperparameters"] = {
            "accepted": search.accepted,
            "reason": search.reason,
            "evidence": asdict(search.evidence) if search.evidence else None,
        }
    if isinstance(statistics, Stored):
        fitted = learner.fit_statistics(protocol, statistics, used)
        before = transact(policies.blocks, serving, ids)
        change = fit_parts.largest_change(before, (fitted.beta, fitted.V), protocol)
    else:
        basis = Basis(snapshot.protocol_id, snapshot.row_seq, serving.policy_id)
        fitted, change, report["parts"] = fit_parts.fit(job, basis, protocol, everybody, used)
    learner.gate(fitted, protocol)
    report["log_evidence"] = fitted.log_evidence
    report["largest_change"] = change
    report["fit_seconds"] = round(time.perf_counter() - began, 4)
    return Fitted(fitted, ids, report)


def _finish(session: Session, job: Job, policy_id: int, note: str) -> None:
    """Finish a refit that made no policy, with the policy that serves and the reason."""
    jobs.finish(session, job, datetime.now(UTC), {"policy_id": policy_id, "note": note})


def _is_overtaken(session: Session, job: Job, snapshot: Snapshot, study: Study) -> bool:
    """Finish the job if learning was frozen or a policy activated during the fit; return whether it was."""
    if not study.learning_frozen and study.policy_id == snapshot.serving.policy_id:
        return False
    note = FROZEN if study.learning_frozen else "another policy was activated meanwhile"
    _finish(session, job, study.policy_id, note)
    return True


def _serve_without_rows(session: Session, job: Job, snapshot: Snapshot, note: str) -> None:
    """Finish a refit that has no rows to learn from; note: the reason.

    The serving policy stays, unless it was learnt from rows that are all removed now: then the prior serves.
    """
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
    _finish(session, job, study.policy_id, note)


def _store(session: Session, job: Job, snapshot: Snapshot, fitted: Fitted) -> bool:
    """Store the policy, let it serve and finish the job; return False where the fit was overtaken."""
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
    result: dict[str, Any] = {"policy_id": policy.policy_id}
    refusal_reason = fitted.report.get("hyperparameters", {}).get("reason")
    if refusal_reason:
        result["note"] = f"the hyper-parameters stay: {refusal_reason}"
    jobs.finish(session, job, datetime.now(UTC), result)
    return True

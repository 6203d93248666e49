"""Protocols in use: versions ready for use, the version in force, and its replacement."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from algorithm.trial import amendments, protocol
from algorithm.trial.learner import prior_policy
from algorithm.trial.protocol import Protocol
from models.core import studies
from models.core.jobs import REFIT, QueuedJob
from models.core.studies import Study
from models.trial import policies, protocols, refits
from models.trial.policies import Policy, Stamp
from models.trial.protocols import ProtocolVersion, Written
from services.core import caches
from version import code_version

_loaded: dict[int, Protocol] = {}


class Entered(NamedTuple):
    """A version that has come in force: the audit's notes of before and after, and the refit it needs."""

    before: dict[str, Any]
    after: dict[str, Any]
    jobs: list[QueuedJob]


def loaded(session: Session, protocol_id: int) -> Protocol:
    """Return a protocol version, ready for use. Versions never change: each process keeps what it read."""
    version = _loaded.get(protocol_id)
    if version is None:
        version = ready(protocols.by_id(session, protocol_id))
        caches.make_room(_loaded)
        _loaded[protocol_id] = version
    return version


def ready(version: ProtocolVersion) -> Protocol:
    """Return a stored version ready for use, with keys younger than the version at their defaults."""
    return protocol.stored(version.document, version.hash)


def in_force(session: Session, study_id: int) -> Protocol:
    """Return the protocol in force in a study, ready for use."""
    return loaded(session, protocols.in_force(session, studies.by_id(session, study_id)).id)


def add(
    session: Session,
    study: Study,
    number: int,
    document: Protocol,
    author: str,
    reason: str,
    effective_at: datetime | None = None,
) -> ProtocolVersion:
    """Store a protocol as version `number` of a study, to come in force at `effective_at` (None: now)."""
    written = Written(
        document.document, document.digest, document.design.history, document.envelope.looks_back_days
    )
    return protocols.add(session, study.id, number, written, author, reason, effective_at)


def add_prior(session: Session, study: Study, version: ProtocolVersion, document: Protocol) -> Policy:
    """Store the policy that a version of a study begins with: it knows nobody yet."""
    prior = prior_policy(document)
    stamp = Stamp(
        protocol_id=version.id,
        protocol_hash=version.hash,
        algorithm=document.algorithm,
        feature_version=document.design.feature_version,
        code_version=code_version(),
        row_seq=study.row_seq,
    )
    return policies.add(session, study.id, stamp, prior, (prior.block.mean, prior.block.covariance), [], {})


def noted(version: ProtocolVersion) -> dict[str, Any]:
    """Return the part of a version that the audit notes; the document is in its own table."""
    return {
        "version": version.version,
        "hash": version.hash,
        "effective_at": version.effective_at.isoformat(),
    }


def enter(session: Session, study: Study, version: ProtocolVersion, now: datetime) -> Entered:
    """Let a version of a locked study hold from the next decision on.

    Where the version begins anew (other features, another prior), its own prior serves until the fit that is
    asked for here. A participant beyond the end of a shorter study has ended, or will with the open window.
    """
    old, new = protocols.in_force(session, study), ready(version)
    begins_anew = amendments.begins_anew(ready(old).document, new.document)
    before = noted(old) | {"policy_id": study.policy_id}
    study.protocol_version = version.version
    if begins_anew:
        study.policy_id = add_prior(session, study, version, new).policy_id
    session.flush()
    protocols.end_beyond(session, study.id, new.schedule.study_length)
    after = noted(version) | {"policy_id": study.policy_id, "in_force": True}
    if not begins_anew:
        return Entered(before, after, [])
    refit = refits.request(session, study.id, now, hyperparameters=False)
    return Entered(before, after | {"refit_job_id": refit.job_id}, [QueuedJob(REFIT, refit.job_id)])

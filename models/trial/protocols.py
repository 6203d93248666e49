"""Protocol versions: which one is due, and what changes when it comes in force."""

import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from models.core import studies
from models.core.pg_arrays import Array
from models.core.studies import ProtocolVersion, Study
from models.trial import policies, refits
from models.trial.decisions import Decision
from models.trial.policies import Learnt, Stamp


class Block(typing.Protocol):
    """What everybody is served with: mean (q,) and covariance (q, q)."""

    @property
    def mean(self) -> Array: ...
    @property
    def covariance(self) -> Array: ...


class Begun(Learnt, typing.Protocol):
    """The numbers of a policy that knows nobody yet."""

    @property
    def block(self) -> Block: ...


class Design(typing.Protocol):
    """What features are made by."""

    @property
    def feature_version(self) -> str: ...


class Basis(typing.Protocol):
    """What a policy is computed by: a loaded protocol."""

    @property
    def algorithm(self) -> str: ...
    @property
    def design(self) -> Design: ...


class Prior(NamedTuple):
    """The policy that a version begins with: its numbers, and mean and covariance for everybody."""

    stamp: Stamp
    learnt: Learnt
    advantage: tuple[Array, Array]


class Entered(NamedTuple):
    """What the audit tells of a version's coming in force, and the refit job that it needs, or None."""

    before: dict[str, Any]
    after: dict[str, Any]
    job_id: int | None


# Who is beyond a shorter study's end has ended, or will with the window that is open.
LAST_WINDOWS = """
UPDATE participants p SET phase = 'COMPLETED_AWAITING_REVIEW'
WHERE p.study_id = :study_id AND p.phase = 'STARTED' AND p.decision_index + 1 >= :length
  AND EXISTS (SELECT FROM decisions d
              WHERE d.participant_id = p.id AND d.decision_index = p.decision_index + 1)
"""
BEYOND_THE_END = """
UPDATE participants p SET phase = 'ENDED'
WHERE p.study_id = :study_id AND p.phase = 'STARTED' AND p.decision_index >= :length
"""


def latest(session: Session, study_id: int) -> ProtocolVersion:
    """The version with the highest number, in force or waiting."""
    return session.scalars(
        select(ProtocolVersion)
        .where(ProtocolVersion.study_id == study_id)
        .order_by(ProtocolVersion.version.desc())
        .limit(1)
    ).one()


def listed(session: Session, study_id: int) -> list[ProtocolVersion]:
    """All versions by number."""
    return list(
        session.scalars(
            select(ProtocolVersion)
            .where(ProtocolVersion.study_id == study_id)
            .order_by(ProtocolVersion.version)
        )
    )


def waiting(session: Session, now: datetime) -> list[int]:
    """Ids of the studies in which a later version is due."""
    return list(
        session.scalars(
            select(Study.id)
            .join(ProtocolVersion, ProtocolVersion.study_id == Study.id)
            .where(ProtocolVersion.version > Study.protocol_version, ProtocolVersion.effective_at <= now)
            .distinct()
            .order_by(Study.id)
        )
    )


def due(session: Session, study: Study, now: datetime) -> ProtocolVersion | None:
    """The highest version above the study's own whose time has come, or None."""
    return session.scalars(
        select(ProtocolVersion)
        .where(
            ProtocolVersion.study_id == study.id,
            ProtocolVersion.version > study.protocol_version,
            ProtocolVersion.effective_at <= now,
        )
        .order_by(ProtocolVersion.version.desc())
        .limit(1)
    ).one_or_none()


def reached(session: Session, study_id: int) -> int:
    """The highest decision index of any participant; 0 before the first decision."""
    found = session.scalar(select(func.max(Decision.decision_index)).where(Decision.study_id == study_id))
    return found or 0


def prior(study: Study, version: ProtocolVersion, basis: Basis, learnt: Begun, code_version: str) -> Prior:
    """The policy that a version of a study begins with."""
    stamp = Stamp(
        protocol_id=version.id,
        protocol_hash=version.hash,
        algorithm=basis.algorithm,
        feature_version=basis.design.feature_version,
        code_version=code_version,
        row_seq=study.row_seq,
    )
    return Prior(stamp, learnt, (learnt.block.mean, learnt.block.covariance))


def noted(version: ProtocolVersion) -> dict[str, Any]:
    """What the audit tells of a version; the document is in its own table."""
    return {
        "version": version.version,
        "hash": version.hash,
        "effective_at": version.effective_at.isoformat(),
    }


def enter(
    session: Session, study: Study, version: ProtocolVersion, prior: Prior | None, now: datetime
) -> Entered:
    """Let a version of a locked study hold from the next decision on.

    prior: where the version begins anew, the policy that serves until the fit that is asked for here.
    """
    before = noted(studies.protocol(session, study)) | {"policy_id": study.policy_id}
    study.protocol_version = version.version
    if prior is not None:
        policy = policies.add(session, study.id, prior.stamp, prior.learnt, prior.advantage, [], {})
        study.policy_id = policy.policy_id
    session.flush()
    _end_who_is_beyond(session, study.id, version.document)
    after = noted(version) | {"policy_id": study.policy_id, "in_force": True}
    if prior is None:
        return Entered(before, after, None)
    job_id = refits.request(session, study.id, now, hyperparameters=False).job_id
    return Entered(before, after | {"refit_job_id": job_id}, job_id)


def _end_who_is_beyond(session: Session, study_id: int, document: Mapping[str, Any]) -> None:
    known = {"study_id": study_id, "length": document["schedule"]["study_length"]}
    session.execute(text(LAST_WINDOWS), known)
    session.execute(text(BEYOND_THE_END), known)

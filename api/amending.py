"""The change of a study's protocol, for whoever may ask for it: what is refused, and what it does.

The act is plain: who needs a second person's approval asks `check` when it is proposed, and `perform` when it
is approved.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from algorithm import amendments, protocol
from algorithm.learner import prior_policy
from algorithm.protocol import Protocol, ProtocolError
from api.errors import Fault, FieldError, Refusal
from models import audit, studies, versions
from models.studies import ProtocolVersion, Study, Written
from models.versions import Prior
from version import code_version


class Change(NamedTuple):
    """A document that is to replace the protocol at `effective_at` (None: at once), and why.

    amendment: it may change what the analysis of the trial hangs on.
    """

    document: Mapping[str, Any]
    reason: str
    effective_at: datetime | None
    amendment: bool


class Changed(NamedTuple):
    """The new version, whether it is in force already, and the refit that was asked for, if any."""

    version: ProtocolVersion
    in_force: bool
    job_id: int | None


def check(session: Session, study_id: int, change: Change, now: datetime) -> Protocol:
    """The protocol that a change makes. Raises Refusal where it is not possible."""
    made = _loaded(change.document)
    latest = versions.latest(session, study_id)
    old = _complete(latest)
    if not amendments.changes(old, made.document):
        raise Refusal(Fault.PROTOCOL_SAME)
    if latest.effective_at > (change.effective_at or now):
        raise Refusal(Fault.PROTOCOL_WAITS)
    breaking = _breaking(session, study_id, old, made.document, change, now)
    if breaking and not change.amendment:
        told = "needs an amendment once decisions exist"
        raise Refusal(
            Fault.NEEDS_AMENDMENT,
            errors=[FieldError(field=f"document.{key}", message=told) for key in breaking],
        )
    return made


def _complete(version: ProtocolVersion) -> Mapping[str, Any]:
    """A stored document with the keys that came after it."""
    return protocol.stored(version.document, version.hash).document


def _loaded(document: Mapping[str, Any]) -> Protocol:
    try:
        return protocol.load(document)
    except ProtocolError as error:
        told = str(error).removeprefix(f"{error.key}: ")
        raise Refusal(Fault.FIELD, errors=[FieldError(field=f"document.{error.key}", message=told)]) from None


def _breaking(
    session: Session,
    study_id: int,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    change: Change,
    now: datetime,
) -> list[str]:
    """The keys that need an amendment; of a future version as though every point had been decided by then."""
    reached = versions.reached(session, study_id)
    if change.effective_at is not None and change.effective_at > now:
        reached = int(old["schedule"]["study_length"])
    return amendments.breaking(old, new, reached) if reached else []


def perform(session: Session, study_id: int, client_id: int, change: Change, now: datetime) -> Changed:
    """Store the new version; where its time has come, let it come in force. Raises Refusal."""
    study = studies.locked(session, study_id)
    if study.closed_at is not None:
        raise Refusal(Fault.STUDY_CLOSED)
    made = check(session, study_id, change, now)
    before = versions.latest(session, study_id)
    author = f"account {client_id}"
    version = studies.add_protocol(
        session,
        study_id,
        before.version + 1,
        written(made),
        author,
        change.reason,
        change.effective_at or now,
    )
    audit.note(
        session,
        study_id,
        client_id,
        audit.PROTOCOL_VERSION,
        change.reason,
        before=_noted(before),
        after=_noted(version),
    )
    if version.effective_at > now:
        return Changed(version, False, None)
    return Changed(version, True, _enter(session, study, version, made, now))


def _noted(version: ProtocolVersion) -> dict[str, Any]:
    """What the audit tells of a version; the document is in its own table."""
    return {
        "version": version.version,
        "hash": version.hash,
        "effective_at": version.effective_at.isoformat(),
    }


def _enter(
    session: Session, study: Study, version: ProtocolVersion, made: Protocol, now: datetime
) -> int | None:
    """The refit job that this asked for, or None."""
    anew = amendments.begins_anew(_complete(studies.protocol(session, study)), made.document)
    return versions.enter(session, study, version, prior(study, version, made) if anew else None, now)


def written(made: Protocol) -> Written:
    """What is stored of a protocol."""
    return Written(made.document, made.digest, made.design.history, made.envelope.looks_back_days)


def prior(study: Study, version: ProtocolVersion, made: Protocol) -> Prior:
    """The policy that a version of a study begins with."""
    return versions.prior(study, version, made, prior_policy(made), code_version())

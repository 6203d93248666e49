"""The change of a study's protocol, a dangerous act: what is refused, and what it does."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from algorithm.trial import amendments, protocol
from algorithm.trial.learner import prior_policy
from algorithm.trial.protocol import Protocol, ProtocolError
from api.oversight.approval import Doing, Told, dangerous
from models.core import audit, jobs, studies
from models.core.studies import ProtocolVersion, Study, Written
from models.trial import protocols
from models.trial.protocols import Entered, Prior
from services.core.faults import CoreFault
from services.core.refusals import FieldError, Refusal
from services.oversight.faults import OversightFault
from services.trial.faults import TrialFault
from version import code_version


class Change(NamedTuple):
    """A document that is to replace the protocol at `effective_at`, or at once where that has passed.

    amendment: it may change what the analysis of the trial hangs on.
    """

    made: Protocol
    effective_at: datetime
    amendment: bool


def arguments(
    session: Session,
    study_id: int,
    document: Mapping[str, Any],
    effective_at: datetime | None,
    amendment: bool,
) -> dict[str, Any]:
    """What the proposal of a change keeps: the completed document, and which version it is to follow.

    Raises Refusal.
    """
    return {
        "document": _loaded(document).document,
        "effective_at": effective_at and effective_at.isoformat(),
        "amendment": amendment,
        "follows": protocols.latest(session, study_id).version,
    }


def _change(arguments: Mapping[str, Any], now: datetime) -> Change:
    asked = arguments["effective_at"]
    effective_at = now if asked is None else max(now, datetime.fromisoformat(asked))
    return Change(_loaded(arguments["document"]), effective_at, arguments["amendment"])


def _can_change(session: Session, study_id: int, arguments: Mapping[str, Any]) -> None:
    if studies.locked(session, study_id).closed_at is not None:
        raise Refusal(TrialFault.STUDY_CLOSED)
    now = datetime.now(UTC)
    change = _change(arguments, now)
    latest = protocols.latest(session, study_id)
    if latest.version != arguments["follows"]:  # the document would undo what came between
        raise Refusal(OversightFault.PROTOCOL_MOVED)
    old, new = _complete(latest), change.made.document
    if not amendments.changes(old, new):
        raise Refusal(OversightFault.PROTOCOL_SAME)
    if latest.effective_at > change.effective_at:
        raise Refusal(OversightFault.PROTOCOL_WAITS)
    at_once = change.effective_at == now
    breaking = _breaking(session, study_id, old, new, at_once)
    if breaking and not change.amendment:
        told = "needs an amendment once decisions exist"
        raise Refusal(
            OversightFault.NEEDS_AMENDMENT,
            errors=[FieldError(field=f"document.{key}", message=told) for key in breaking],
        )


def _only_tightens(session: Session, study_id: int, arguments: Mapping[str, Any]) -> bool:
    """Safety does not wait for a second person."""
    return amendments.only_tightens(_complete(protocols.latest(session, study_id)), arguments["document"])


def _complete(version: ProtocolVersion) -> Mapping[str, Any]:
    """A stored document with the keys that came after it."""
    return protocol.stored(version.document, version.hash).document


def _loaded(document: Mapping[str, Any]) -> Protocol:
    try:
        return protocol.load(document)
    except ProtocolError as error:
        told = str(error).removeprefix(f"{error.key}: ")
        raise Refusal(
            CoreFault.FIELD, errors=[FieldError(field=f"document.{error.key}", message=told)]
        ) from None


def _breaking(
    session: Session, study_id: int, old: Mapping[str, Any], new: Mapping[str, Any], at_once: bool
) -> list[str]:
    """The keys that need an amendment; of a future version as though every point had been decided by then."""
    reached = protocols.reached(session, study_id) if at_once else int(old["schedule"]["study_length"])
    return amendments.breaking(old, new, reached) if reached else []


@dangerous(audit.PROTOCOL_VERSION, _can_change, alone=_only_tightens)
def _perform(session: Session, doing: Doing, arguments: Mapping[str, Any]) -> list[Told]:
    """Store the new version and, where its time has come, let it come in force: one row of the audit."""
    change = _change(arguments, doing.now)
    study = studies.locked(session, doing.who.study_id)
    before = protocols.latest(session, study.id)
    version = studies.add_protocol(
        session,
        study.id,
        before.version + 1,
        written(change.made),
        f"account {doing.noted['proposed_by']}",
        doing.reason,
        change.effective_at,
    )
    if version.effective_at > doing.now:
        waits = Entered(protocols.noted(before), protocols.noted(version) | {"in_force": False}, None)
        return _note(session, doing, waits)
    return _note(session, doing, _enter(session, study, version, change.made, doing.now))


def _enter(
    session: Session, study: Study, version: ProtocolVersion, made: Protocol, now: datetime
) -> Entered:
    anew = amendments.begins_anew(_complete(studies.protocol(session, study)), made.document)
    return protocols.enter(session, study, version, prior(study, version, made) if anew else None, now)


def _note(session: Session, doing: Doing, done: Entered) -> list[Told]:
    """The refit that comes of it, if any."""
    who, after = doing.who, {**done.after, **doing.noted}
    act = audit.PROTOCOL_VERSION
    audit.note(session, who.study_id, who.client_id, act, doing.reason, None, done.before, after, who.role)
    return [] if done.job_id is None else [Told(jobs.REFIT, done.job_id)]


def written(made: Protocol) -> Written:
    """What is stored of a protocol."""
    return Written(made.document, made.digest, made.design.history, made.envelope.looks_back_days)


def prior(study: Study, version: ProtocolVersion, made: Protocol) -> Prior:
    """The policy that a version of a study begins with."""
    return protocols.prior(study, version, made, prior_policy(made), code_version())

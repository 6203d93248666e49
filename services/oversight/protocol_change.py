"""The change of a study's protocol, a dangerous act: its checks and its effects."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from algorithm.trial import amendments, protocol
from algorithm.trial.protocol import Protocol, ProtocolError
from models.core import audit, studies
from models.core.jobs import QueuedJob
from models.oversight.acts import OversightAct
from models.trial import protocols as versions
from services.core.faults import CoreFault
from services.core.refusals import FieldError, Refusal
from services.oversight.approval import ApprovedAct, dangerous
from services.oversight.faults import OversightFault
from services.trial import protocols
from services.trial.faults import TrialFault
from services.trial.protocols import Entered


class Change(NamedTuple):
    """A protocol that is to replace the one in force at `effective_at`, or at once where that has passed.

    amendment: it may change what the analysis of the trial hangs on.
    """

    protocol: Protocol
    effective_at: datetime
    amendment: bool


def arguments(
    session: Session,
    study_id: int,
    document: Mapping[str, Any],
    effective_at: datetime | None,
    amendment: bool,
) -> dict[str, Any]:
    """Return the arguments that a proposal keeps: the completed document, and the version that it follows.

    Raises Refusal.
    """
    return {
        "document": _loaded(document).document,
        "effective_at": effective_at and effective_at.isoformat(),
        "amendment": amendment,
        "follows": versions.latest(session, study_id).version,
    }


def _loaded(document: Mapping[str, Any]) -> Protocol:
    """Return the protocol of a document. Raises Refusal that names the key at fault."""
    try:
        return protocol.load(document)
    except ProtocolError as error:
        message = str(error).removeprefix(f"{error.key}: ")
        field_error = FieldError(field=f"document.{error.key}", message=message)
        raise Refusal(CoreFault.FIELD, errors=[field_error]) from None


def _change(arguments: Mapping[str, Any], now: datetime) -> Change:
    """Return the change that a proposal's arguments stand for, as of `now`."""
    text = arguments["effective_at"]
    effective_at = now if text is None else max(now, datetime.fromisoformat(text))
    return Change(_loaded(arguments["document"]), effective_at, arguments["amendment"])


def _can_change(session: Session, study_id: int, arguments: Mapping[str, Any]) -> None:
    """Raise Refusal where the study is closed or the new version may not follow the latest one."""
    if studies.locked(session, study_id).closed_at is not None:
        raise Refusal(TrialFault.STUDY_CLOSED)
    now = datetime.now(UTC)
    change = _change(arguments, now)
    latest = versions.latest(session, study_id)
    if latest.version != arguments["follows"]:  # the document would undo what came between
        raise Refusal(OversightFault.PROTOCOL_MOVED)
    old, new = protocols.ready(latest).document, change.protocol.document
    if not amendments.changes(old, new):
        raise Refusal(OversightFault.PROTOCOL_SAME)
    if latest.effective_at > change.effective_at:
        raise Refusal(OversightFault.PROTOCOL_WAITS)
    # a version for later is looked at as though every point had been decided by then
    at_once = change.effective_at == now
    reached = versions.reached(session, study_id) if at_once else int(old["schedule"]["study_length"])
    breaking = amendments.breaking(old, new, reached) if reached else []
    if breaking and not change.amendment:
        message = "needs an amendment once decisions exist"
        raise Refusal(
            OversightFault.NEEDS_AMENDMENT,
            errors=[FieldError(field=f"document.{key}", message=message) for key in breaking],
        )


@dangerous(
    OversightAct.PROTOCOL_VERSION,
    _can_change,
    # a change that only tightens the safety envelope waits for no second person
    alone=lambda session, study_id, arguments: amendments.only_tightens(
        protocols.ready(versions.latest(session, study_id)).document, arguments["document"]
    ),
)
def _perform(session: Session, approved: ApprovedAct, arguments: Mapping[str, Any]) -> list[QueuedJob]:
    """Store the new version and, where its time has come, let it come in force: one row of the audit."""
    change = _change(arguments, approved.now)
    study = studies.locked(session, approved.actor.study_id)
    before = versions.latest(session, study.id)
    author = f"account {approved.noted['proposed_by']}"
    version = protocols.add(
        session,
        study,
        before.version + 1,
        change.protocol,
        author,
        approved.reason,
        change.effective_at,
    )
    if version.effective_at > approved.now:
        after = protocols.noted(version) | {"in_force": False}
        entered = Entered(protocols.noted(before), after, [])
    else:
        entered = protocols.enter(session, study, version, approved.now)
    after = {**entered.after, **approved.noted}
    act = OversightAct.PROTOCOL_VERSION
    audit.note(session, approved.actor, act, approved.reason, before=entered.before, after=after)
    return entered.jobs

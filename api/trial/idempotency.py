"""Idempotency keys: a call under a client's own key means the same decision point for good."""

from sqlalchemy.orm import Session

from models.trial import idempotency
from services.core.faults import CoreFault
from services.core.refusals import FieldError, Refusal


def index_meant(
    session: Session, study_id: int, user_id: str, call: str, key: str | None, asked: int | None
) -> int | None:
    """The decision index that a call is about: the one it names, or the one its key has stood for before.

    None where it leaves that to the service. Raises Refusal where the two differ.
    """
    known = idempotency.decision_index(session, study_id, user_id, call, key) if key is not None else None
    if known is None or asked is None:
        return known if asked is None else asked
    if asked != known:
        wrong = FieldError(field="Idempotency-Key", message="has been used for another decision_index")
        raise Refusal(CoreFault.FIELD, errors=[wrong])
    return asked

"""Idempotency keys: a call under a client's own key means the same decision point for good."""

from sqlalchemy.orm import Session

from models.trial import idempotency
from services.core.faults import CoreFault
from services.core.refusals import FieldError, Refusal


def index_meant(
    session: Session, study_id: int, user_id: str, call: str, key: str | None, decision_index: int | None
) -> int | None:
    """Return the decision index that a call is about: the one that it names, or the one kept with its key.

    None where the call leaves that to the service. Raises Refusal where the two differ.
    """
    earlier = idempotency.decision_index(session, study_id, user_id, call, key) if key is not None else None
    if earlier is None or decision_index is None:
        return earlier if decision_index is None else decision_index
    if decision_index != earlier:
        error = FieldError(field="Idempotency-Key", message="has been used for another decision_index")
        raise Refusal(CoreFault.FIELD, errors=[error])
    return decision_index

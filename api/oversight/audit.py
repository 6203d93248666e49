"""The audit: who did what to a study, when and why."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from api.core.endpoint import Domain, Page, Reply
from api.core.fields import Printable
from models.core import audit
from models.core.session import transact
from services.core.callers import Caller

domain = Domain("audit", __doc__)


class AuditQuery(Page):
    """Rows after the last `seq` of the page before, of one act where it is named."""

    act: Printable | None = None


class ActSeen(BaseModel):
    """One act. `hash` covers all else here, and through `prev_hash` every row before."""

    model_config = ConfigDict(from_attributes=True)

    seq: int
    created_at: datetime
    client_id: int | None
    role: str
    participant_id: int | None
    act: str
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    prev_hash: str
    hash: str


class HeadSeen(BaseModel):
    """The last row of the chain: keep it elsewhere, and nothing up to it can be changed unnoticed."""

    model_config = ConfigDict(from_attributes=True)

    seq: int
    hash: str


class AuditPage(Reply):
    """Acts in their order, and the chain's head."""

    audit: list[ActSeen]
    head: HeadSeen


@domain.operation("GET", "/audit", roles={"researcher", "admin"})
def list_audit(query: AuditQuery, caller: Caller) -> AuditPage:
    """The acts on your study: configuration, conduct, accounts, corrections, access to exports."""

    def read(session: Session) -> AuditPage:
        page = audit.listed(session, caller.study_id, query.act, query.after, query.limit)
        head = HeadSeen.model_validate(audit.head(session, caller.study_id))
        return AuditPage(audit=[ActSeen.model_validate(entry) for entry in page], head=head)

    return transact(read)

"""Incidents: the watchdog's findings, for those who run a trial."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from api.core.endpoint import Domain, Page, Reply
from models.core import audit
from models.core.session import transact
from models.oversight import incidents
from models.oversight.acts import OversightAct
from models.oversight.incidents import Incident
from services.core.callers import Caller
from services.core.faults import CoreFault
from services.core.refusals import Refusal

domain = Domain("incidents", __doc__)


class IncidentQuery(Page):
    """The incidents to list: open or over, of one level, after the last id of the page before."""

    open: bool | None = None
    level: Literal["red", "yellow", "green"] | None = None


class IncidentSeen(BaseModel):
    """An incident: a condition that held from first_at to last_at, seen `count` times. Green is over.

    study_id is null where it concerns the whole deployment. acknowledged_by is the id of an account.
    """

    model_config = ConfigDict(from_attributes=True)

    incident_id: int = Field(validation_alias="id")
    study_id: int | None
    kind: str
    level: Literal["red", "yellow", "green"]
    detail: dict[str, float]
    first_at: datetime
    last_at: datetime
    count: int
    resolved_at: datetime | None
    acknowledged_by: int | None
    acknowledged_at: datetime | None


class IncidentPage(Reply):
    """Incidents by id."""

    incidents: list[IncidentSeen]


class IncidentReply(Reply):
    """One incident."""

    incident: IncidentSeen


@domain.operation("GET", "/incidents", roles={"researcher", "admin"})
def list_incidents(query: IncidentQuery, caller: Caller) -> IncidentPage:
    """Incidents of your study and of the deployment. The next page begins after this one's last id."""
    page = transact(incidents.listed, caller.study_id, query.open, query.level, query.after, query.limit)
    return IncidentPage(incidents=[IncidentSeen.model_validate(incident) for incident in page])


@domain.operation(
    "POST", "/incidents/<int:incident_id>/acknowledge", roles={"admin"}, faults=(CoreFault.UNKNOWN,)
)
def acknowledge_incident(incident_id: int, caller: Caller) -> IncidentReply:
    """Note that you have seen to an incident: it is not notified again, unless it turns from yellow to red.

    The first account that did so stays on record.
    """
    now = datetime.now(UTC)

    def acknowledge(session: Session) -> Incident:
        incident = incidents.acknowledge(session, caller.study_id, incident_id, caller.client_id, now)
        if incident is None:
            raise Refusal(CoreFault.UNKNOWN)
        if incident.acknowledged_at == now:  # not a repeat, nor a second account's
            after = {"incident_id": incident.id, "kind": incident.kind, "level": incident.level}
            audit.note(session, caller.actor, OversightAct.ACKNOWLEDGE, "seen to", after=after)
        return incident

    return IncidentReply(incident=IncidentSeen.model_validate(transact(acknowledge)))

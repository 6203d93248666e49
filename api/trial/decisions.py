"""Decisions as they were made, for researchers and admins."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.core.endpoint import Domain, Page, Reply
from models.core.session import transact
from models.trial import decisions
from services.core.callers import Caller

domain = Domain("decisions", __doc__)


class DecisionQuery(Page):
    """The decisions to list: one participant's or everybody's, after the last rid of the page before."""

    participant_id: int | None = Field(default=None, ge=1, le=2**63 - 1)


class DecisionSeen(BaseModel):
    """One decision with all that its draw depends on, by the participant's opaque id.

    `reward` is the outcome that its first call reported, of the action before it where outcomes lag by one.
    """

    model_config = ConfigDict(from_attributes=True)

    rid: int = Field(validation_alias="id")
    participant_id: int
    decision_index: int
    policy_id: int | None
    fallback_level: str
    feature_version: str
    state: list[float] | None
    advantage_mean: float | None
    advantage_variance: float | None
    act_prob: float
    seed: int
    action: Literal[0, 1]
    available: bool
    unavailable_rule: str | None
    reward: float | None
    evening: bool
    decision_time: datetime
    utc_offset_minutes: int
    act_gen_timestamp: datetime
    protocol_hash: str
    code_version: str


class DecisionPage(Reply):
    """Decisions by rid."""

    decisions: list[DecisionSeen]


@domain.operation("GET", "/decisions", roles={"researcher", "admin"})
def list_decisions(query: DecisionQuery, caller: Caller) -> DecisionPage:
    """Every decision as it was issued. The next page begins after this one's last rid."""
    page = transact(decisions.listed, caller.study_id, query.participant_id, query.after, query.limit)
    return DecisionPage(decisions=[DecisionSeen.model_validate(decision) for decision in page])

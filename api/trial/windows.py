"""Windows: the app says that a decision window is over; ops see what became of it."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.core import broker
from api.core.endpoint import Body, Domain, Page, Reply
from api.core.fields import DecisionIndex, Printable, coded
from api.trial.examples import EXAMPLES
from models.core.session import transact
from models.trial import windows
from services.core.callers import Caller
from services.core.faults import CoreFault
from services.trial import windows as service
from services.trial.faults import TrialFault

domain = Domain("windows", __doc__, EXAMPLES)


class WindowEnd(Body):
    """The participant whose window is over, and the decision's index where the app knows it."""

    user_id: Printable = coded(TrialFault.ACTION_USER, examples=["p-017"])
    decision_index: DecisionIndex | None = coded(CoreFault.FIELD, default=None, examples=[1])


class Ended(Reply):
    """The job that fetches the window's survey data, and where to ask how it fares."""

    message: str
    decision_index: int
    job_id: int
    status_url: str


@domain.operation(
    "POST",
    "/end_decision_window",
    roles={"client", "admin"},
    status=202,
    faults=(TrialFault.WINDOW_UNKNOWN, TrialFault.WINDOW_PHASE, TrialFault.WINDOW_UNDECIDED),
    standing_is_read_by_view=True,
)
def end_decision_window(body: WindowEnd, caller: Caller, key: str | None) -> Ended:
    """End the window of the current decision; its survey data is fetched and learnt from afterwards.

    A repeat before the next decision gives the same job. With decision_index, or under the same
    Idempotency-Key, that holds at any time.
    """
    ended = transact(service.end, caller, body.user_id, body.decision_index, key, datetime.now(UTC))
    broker.send(*ended.jobs)
    return Ended(
        message="Decision window ended.",
        decision_index=ended.decision_index,
        job_id=ended.job_id,
        status_url=f"/jobs/{ended.job_id}",
    )


class WindowQuery(Page):
    """The windows to list: those of one state, after the last id of the page before."""

    state: Literal["ended", "ingested", "failed", "missed"] | None = None


class WindowSeen(BaseModel):
    """One closed decision point, by the participant's opaque id."""

    model_config = ConfigDict(from_attributes=True)

    window_id: int = Field(validation_alias="id")
    participant_id: int
    decision_index: int
    kind: str
    state: str
    code: int | None
    ended_at: datetime
    ingested_at: datetime | None


class WindowPage(Reply):
    """Windows by id."""

    windows: list[WindowSeen]


@domain.operation("GET", "/windows", roles={"researcher", "admin"})
def list_windows(query: WindowQuery, caller: Caller) -> WindowPage:
    """Windows and what became of their survey data."""
    page = transact(windows.listed, caller.study_id, query.state, query.after, query.limit)
    return WindowPage(windows=[WindowSeen.model_validate(window) for window in page])


class Retried(Reply):
    """The job that tries again."""

    job_id: int
    status_url: str


@domain.operation(
    "POST",
    "/windows/<int:window_id>/retry",
    roles={"admin"},
    status=202,
    faults=(CoreFault.UNKNOWN,),
)
def retry_window(window_id: int, caller: Caller) -> Retried:
    """Fetch the survey data of a failed window again, now."""
    job = transact(service.retry, caller.actor, window_id, datetime.now(UTC))
    broker.send(job)
    return Retried(job_id=job.job_id, status_url=f"/jobs/{job.job_id}")

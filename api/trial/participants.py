"""Participants enter the trial here, and can be looked at by their opaque id."""

from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from algorithm.trial.decision_time import study_day
from algorithm.trial.protocol import Schedule
from api.core.endpoint import Body, Domain, Page, Reply
from api.core.fields import Day, Printable, Zone, clock, coded
from api.trial.examples import EXAMPLES
from models.core.session import transact
from models.trial import decisions, participants, windows
from models.trial.participants import Participant
from services.core.callers import Caller
from services.core.faults import CoreFault
from services.core.refusals import Fault, FieldError, Refusal
from services.trial import enrolment, protocols
from services.trial.faults import TrialFault

domain = Domain("participants", __doc__, EXAMPLES)


WeekOfTimes = Annotated[list[Annotated[int, AfterValidator(clock)]], Field(min_length=7, max_length=7)]


class Registration(Body):
    """A participant as the study's app knows them. Dates are local; times HHMM, Monday first."""

    user_id: Printable = coded(TrialFault.PARTICIPANT_USER, examples=["p-017"])
    rl_start_date: Day = coded(TrialFault.PARTICIPANT_START)
    rl_end_date: Day = coded(TrialFault.PARTICIPANT_END)
    consent_start_date: Day = coded(TrialFault.CONSENT_START)
    consent_end_date: Day = coded(TrialFault.CONSENT_END)
    morning_notification_time_start: WeekOfTimes = coded(TrialFault.MORNINGS, examples=[[800] * 7])
    evening_notification_time_start: WeekOfTimes = coded(TrialFault.EVENINGS, examples=[[1900] * 7])
    timezone: Zone | None = coded(TrialFault.TIMEZONE, default=None)

    def faults(self) -> list[tuple[Fault, str]]:
        """Return the fields that are right by themselves and wrong together, as (fault, field)."""
        pairs = zip(self.morning_notification_time_start, self.evening_notification_time_start, strict=True)
        starts_inside = self.consent_start_date <= self.rl_start_date <= self.consent_end_date
        ends_inside = self.rl_start_date <= self.rl_end_date <= self.consent_end_date
        checks = [
            (
                self.consent_start_date <= self.consent_end_date,
                TrialFault.CONSENT_END,
                "consent_end_date",
            ),
            (starts_inside, TrialFault.PARTICIPANT_START, "rl_start_date"),
            (ends_inside, TrialFault.PARTICIPANT_END, "rl_end_date"),
            (
                all(morning < evening for morning, evening in pairs),
                TrialFault.EVENINGS,
                "evening_notification_time_start",
            ),
        ]
        return [(fault, field) for holds, fault, field in checks if not holds]


class Registered(Reply):
    """A new participant, with the opaque id that URLs and logs use."""

    message: str
    participant_id: int


@domain.operation(
    "POST",
    "/register",
    roles={"client", "admin"},
    status=201,
    faults=(TrialFault.PARTICIPANT_EXISTS, TrialFault.STUDY_CLOSED),
)
def register(body: Registration, caller: Caller) -> Registered:
    """Enrol a participant.

    The participant starts in phase REGISTERED at decision index 0. The same body again within the hour is
    taken for a retry and answered as the first one was.
    """
    faults = body.faults()
    if faults:
        errors = [FieldError(field=field, message=fault.message) for fault, field in faults]
        raise Refusal(faults[0][0], errors=errors)
    registration = enrolment.Registration(**body.model_dump(), body=body.model_dump(mode="json"))
    participant_id = transact(enrolment.enrol, caller.study_id, registration, datetime.now(UTC))
    return Registered(message=f"User {body.user_id} was added!", participant_id=participant_id)


class ParticipantQuery(Page):
    """The participants to list: the one whom the app calls `user_id`, or all after the last id before."""

    user_id: Printable | None = None


class ParticipantSeen(BaseModel):
    """A participant's progress. The app's name for the person is left out on purpose.

    `decision_index` counts the decision points that are over; `study_day` is that of the point after them.
    """

    participant_id: int
    phase: str
    decision_index: int
    study_day: int
    timezone: str
    rl_start_date: date
    rl_end_date: date


class ZoneSeen(BaseModel):
    """A zone of a participant, from a decision point on (0: from enrolment on)."""

    model_config = ConfigDict(from_attributes=True)

    timezone: str
    since: datetime
    decision_index: int


class PointOver(BaseModel):
    """A decision point that is over, and what became of its survey data."""

    model_config = ConfigDict(from_attributes=True)

    window_id: int = Field(validation_alias="id")
    decision_index: int
    kind: str
    state: str
    code: int | None
    ended_at: datetime
    ingested_at: datetime | None


class ParticipantInFull(ParticipantSeen):
    """A participant with the decision point that waits for its window's end, and with the history."""

    open_decision_index: int | None
    zones: list[ZoneSeen]
    windows: list[PointOver]


class ParticipantReply(Reply):
    """One participant."""

    participant: ParticipantInFull


class ParticipantPage(Reply):
    """Participants by id."""

    participants: list[ParticipantSeen]


@domain.operation("GET", "/participants", roles={"researcher", "admin"})
def list_participants(query: ParticipantQuery, caller: Caller) -> ParticipantPage:
    """Participants of your study. The next page begins after this one's last participant_id."""

    def read(session: Session) -> list[ParticipantSeen]:
        page = participants.listed(session, caller.study_id, query.user_id, query.after, query.limit)
        schedule = protocols.in_force(session, caller.study_id).schedule
        return [ParticipantSeen(**_progress(participant, schedule)) for participant in page]

    return ParticipantPage(participants=transact(read))


def _progress(participant: Participant, schedule: Schedule) -> dict[str, Any]:
    """Return the values of ParticipantSeen."""
    point = min(participant.decision_index + 1, schedule.study_length)
    return {
        "participant_id": participant.id,
        "phase": participant.phase,
        "decision_index": participant.decision_index,
        "study_day": study_day(point, schedule.points_per_day),
        "timezone": participant.timezone,
        "rl_start_date": participant.rl_start_date,
        "rl_end_date": participant.rl_end_date,
    }


@domain.operation(
    "GET",
    "/participants/<int:participant_id>",
    roles={"researcher", "admin"},
    faults=(CoreFault.UNKNOWN,),
)
def show_participant(participant_id: int, caller: Caller) -> ParticipantReply:
    """One participant of your study: progress, time zones, and every decision point that is over."""

    def read(session: Session) -> ParticipantInFull:
        participant = participants.of_study(session, caller.study_id, participant_id)
        if participant is None:
            raise Refusal(CoreFault.UNKNOWN)
        current = participant.decision_index + 1
        return ParticipantInFull(
            **_progress(participant, protocols.in_force(session, caller.study_id).schedule),
            open_decision_index=current if decisions.at(session, participant_id, current) else None,
            zones=[ZoneSeen.model_validate(zone) for zone in participants.zones(session, participant_id)],
            windows=[PointOver.model_validate(w) for w in windows.of_participant(session, participant_id)],
        )

    return ParticipantReply(participant=transact(read))

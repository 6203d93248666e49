"""The requests and answers of the decision service, as dataclasses whose fields are named as in its JSON."""

from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Literal


@dataclass(frozen=True)
class Enrolment:
    """A participant at POST /register. Notification times are HHMM, Monday first; dates include both ends."""

    user_id: str
    rl_start_date: date
    rl_end_date: date
    consent_start_date: date
    consent_end_date: date
    morning_notification_time_start: tuple[int, ...]
    evening_notification_time_start: tuple[int, ...]
    timezone: str | None = None


@dataclass(frozen=True)
class Survey:
    """The answers of one decision point. The last two are None (sent as "NA") where it was not finished."""

    finished_ema: bool
    app_use_flag: bool
    activity_question_response: bool | None = None
    cannabis_use: tuple[float, ...] | None = None

    def fields(self) -> dict[str, Any]:
        """Return the four fields as they are sent."""
        return {name: "NA" if value is None else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Brushing:
    """The record of one decision point of an Oralytics study, made after its action."""

    brushing_seconds: float
    app_used: bool

    def fields(self) -> dict[str, Any]:
        """Return the two fields as they are sent."""
        return asdict(self)


@dataclass(frozen=True)
class Decision:
    """The answer of POST /actions or /decision_points: action = 1 exactly where seed / 2**53 < act_prob."""

    rid: int
    action: int
    seed: int
    act_prob: float
    policy_id: int | None
    decision_index: int
    act_gen_timestamp: datetime
    state: tuple[float, ...] | None
    fallback_level: str


@dataclass(frozen=True)
class EndedWindow:
    """The answer of POST /end_decision_window; the job fetches and stores the window's data."""

    decision_index: int
    job_id: int
    status_url: str


@dataclass(frozen=True)
class Accepted:
    """The answer of POST /update_parameters: a refit that is queued, or was already."""

    job_id: int
    status_url: str


@dataclass(frozen=True)
class Job:
    """A job: its `state` is queued, running, done or failed; `code` and `reason` say why it failed."""

    job_id: int
    kind: str
    state: str
    attempts: int
    code: int | None
    reason: str | None


@dataclass(frozen=True)
class StudyReport:
    """The answer of GET /study: the counts of one study as the service sees them."""

    study: str
    participants: int
    decisions: int
    windows: dict[str, int]
    discrepancies: int
    fallbacks: dict[str, int]
    policies: int
    policy_id: int
    rows: int
    policy_rows: int
    jobs: dict[str, int]
    study_length: int
    protocol: str = "miwaves"


@dataclass(frozen=True)
class Policy:
    """One policy of GET /policies; `act_prob` is the population's per state, "000" to "111"."""

    policy_id: int
    rows: int
    act_prob: dict[str, float]


@dataclass(frozen=True)
class Token:
    """The answer of POST /auth/register and /auth/login."""

    auth_token: str


@dataclass(frozen=True)
class JobAnswer:
    """The answer of GET /jobs/<job_id>."""

    job: Job


@dataclass(frozen=True)
class PolicyList:
    """The answer of GET /policies."""

    policies: list[Policy]


@dataclass(frozen=True)
class Done:
    """The field that every success has."""

    status: Literal["success"]

"""Items of survey data: their fields, and where they disagree with what was issued."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from algorithm import reports
from algorithm.fields import ProtocolError
from algorithm.protocols.design import Design
from algorithm.reports import Difference
from models.decisions import Decision

NO_FIELD_CODE = 303


def _coded(code: int, **more: Any) -> Any:
    return Field(json_schema_extra={"error_code": code}, **more)


def _unknown(value: Any) -> Any:
    return None if value == "NA" else value


Times = Annotated[list[int], Field(min_length=7, max_length=7)] | int | None
Moment = Annotated[str, Field(max_length=64)]


class Item(BaseModel):
    """Answers with the decision that the app says they belong to. Unknown fields are not stored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    user_id: str = _coded(NO_FIELD_CODE, max_length=128)
    answers: dict[str, Any]
    action_taken: Literal[0, 1] = _coded(304)
    seed: int = _coded(305, ge=0, lt=2**53)
    act_prob: float = _coded(306, ge=0, le=1)
    policy_id: int | None = _coded(307)
    decision_index: int = _coded(308, ge=1)
    act_gen_timestamp: Moment = _coded(309)
    rid: int = _coded(310, ge=1, lt=2**63)
    timestamp_finished_ema: Annotated[Moment | None, BeforeValidator(_unknown)] = _coded(311, default=None)
    message_notification_sent_time: Annotated[Moment | None, BeforeValidator(_unknown)] = _coded(
        312, default=None
    )
    message_notification_click_time: Annotated[Moment | None, BeforeValidator(_unknown)] = _coded(
        313, default=None
    )
    morning_notification_time_start: Times = _coded(314, default=None)
    evening_notification_time_start: Times = _coded(315, default=None)

    def content(self) -> dict[str, Any]:
        """What is stored: one flat object, without the person's name."""
        return self.model_dump(exclude={"user_id", "answers"}) | self.answers


class BadItem(ValueError):
    """An item with a field missing or wrong; `code` says which, the message names it, never its value."""

    def __init__(self, code: int, field: str) -> None:
        super().__init__(f"{field} is missing or wrong")
        self.code = code


def read(raw: dict[str, Any], design: Design) -> Item:
    """The item in `raw`, with the answers of `design`. Raises BadItem, also for times that are none."""
    answers, faulty = _answers(raw, design)
    try:
        item = Item.model_validate({**raw, "answers": answers})
    except ValidationError as error:
        name = str(error.errors(include_input=False, include_url=False, include_context=False)[0]["loc"][0])
        name = faulty if name == "answers" else name
        raise BadItem(code_of(name), name) from None
    for name in ("act_gen_timestamp", "timestamp_finished_ema"):
        moment(getattr(item, name), "UTC", name)
    return item


def _answers(raw: dict[str, Any], design: Design) -> tuple[dict[str, Any] | None, str]:
    """The answers, or None and the first that is missing or wrong."""
    found = {}
    for name, check in design.answers.items():
        try:
            found[name] = check(name, _unknown(raw.get(name)))
        except ProtocolError:
            return None, name
    return found, ""


def code_of(name: str) -> int:
    """The error code of a field of `Item`."""
    field = Item.model_fields.get(name)
    extra = field.json_schema_extra if field else None
    code = extra.get("error_code") if isinstance(extra, dict) else None
    return code if isinstance(code, int) else NO_FIELD_CODE


def moment(written: str | None, zone: str, name: str) -> datetime | None:
    """A time as written, in `zone` where it carries no offset. Raises BadItem where it is no time."""
    try:
        return reports.instant(written, zone)
    except ValueError:
        raise BadItem(code_of(name), name) from None


def differences(item: Item, issued: Decision, zone: str) -> list[Difference]:
    """Where an item says something else than what was issued for its decision."""
    return reports.differences(item.model_dump(), vars(issued), zone)


def tells_outcome(item: Item, issued: Decision, zone: str, outcome_lag: int) -> bool:
    """Whether the answers count for the outcome."""
    return reports.tells_outcome(item.model_dump(), vars(issued), zone, outcome_lag)

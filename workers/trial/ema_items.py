"""Items of survey data: their fields, and where they disagree with what was issued."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from algorithm.core.checks import ProtocolError, hhmm
from algorithm.trial import discrepancies
from algorithm.trial.designs.design import Design
from algorithm.trial.discrepancies import Difference
from models.trial.decisions import Decision

NO_FIELD_CODE = 303


def _coded(code: int, **more: Any) -> Any:
    return Field(json_schema_extra={"error_code": code}, **more)


def _unknown(value: Any) -> Any:
    return None if value == "NA" else value


def _time(written: str) -> str:
    """The text as it came, which is kept: any character may stand before the hours, also one that the
    database refuses. Raises ValueError where it is no time."""
    if not (written.isascii() and written.isprintable()):
        raise ValueError("not a time")
    discrepancies.instant(written, "UTC")
    return written


Clock = Annotated[int, AfterValidator(lambda value: hhmm("time", value))]
Week = Annotated[list[Clock], Field(min_length=7, max_length=7)] | Clock | None
Time = Annotated[str, Field(max_length=64), AfterValidator(_time)]
KnownTime = Annotated[Time | None, BeforeValidator(_unknown)]


class Item(BaseModel):
    """What the app says of a decision, apart from the answers. Unknown fields are not stored.

    All of it is bounded: it may come to stand in a discrepancy. Numbers are those that their columns hold.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    user_id: str = _coded(NO_FIELD_CODE, max_length=128)
    action_taken: Literal[0, 1] = _coded(304)
    seed: int = _coded(305, ge=0, lt=2**53)
    act_prob: float = _coded(306, ge=0, le=1)
    policy_id: int | None = _coded(307, ge=0, lt=2**31)
    decision_index: int = _coded(308, ge=1, lt=2**31)
    act_gen_timestamp: Time = _coded(309)
    rid: int = _coded(310, ge=1, lt=2**63)
    timestamp_finished_ema: KnownTime = _coded(311, default=None)
    message_notification_sent_time: KnownTime = _coded(312, default=None)
    message_notification_click_time: KnownTime = _coded(313, default=None)
    morning_notification_time_start: Week = _coded(314, default=None)
    evening_notification_time_start: Week = _coded(315, default=None)

    def content(self, answers: dict[str, Any]) -> dict[str, Any]:
        """What is stored: one flat object with the answers, without the person's name."""
        return self.model_dump(exclude={"user_id"}) | answers


class BadItem(ValueError):
    """An item with a field missing or wrong; `code` says which, the message names it, never its value."""

    def __init__(self, code: int, field: str) -> None:
        super().__init__(f"{field} is missing or wrong")
        self.code = code


def read(raw: dict[str, Any]) -> Item:
    """The item in `raw`. Raises BadItem."""
    try:
        return Item.model_validate(raw)
    except ValidationError as error:
        name = str(error.errors(include_input=False, include_url=False, include_context=False)[0]["loc"][0])
        raise BadItem(code_of(name), name) from None


def answers(raw: dict[str, Any], design: Design) -> dict[str, Any]:
    """The answers of `design` in `raw`. Raises BadItem for the first that is missing or wrong."""
    found = {}
    for name, check in design.answers.items():
        try:
            found[name] = check(name, _unknown(raw.get(name)))
        except ProtocolError:
            raise BadItem(code_of(name), name) from None
    return found


def code_of(name: str) -> int:
    """The error code of a field of `Item`."""
    field = Item.model_fields.get(name)
    extra = field.json_schema_extra if field else None
    code = extra.get("error_code") if isinstance(extra, dict) else None
    return code if isinstance(code, int) else NO_FIELD_CODE


def differences(item: Item, issued: Decision, zone: str) -> list[Difference]:
    """Where an item says something else than what was issued for its decision."""
    return discrepancies.differences(item.model_dump(), vars(issued), zone)


def tells_outcome(item: Item, issued: Decision, zone: str, outcome_lag: int) -> bool:
    """Whether the answers count for the outcome."""
    return discrepancies.tells_outcome(item.model_dump(), vars(issued), zone, outcome_lag)

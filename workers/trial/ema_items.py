"""Items of survey data: their fields, and their differences from the decisions that they belong to."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from algorithm.core.checks import ProtocolError, hhmm
from algorithm.trial import discrepancies
from algorithm.trial.designs.design import Design
from algorithm.trial.discrepancies import Difference
from models.trial.decisions import Decision

NO_FIELD_CODE = 303


def _coded(code: int, **more: Any) -> Any:
    """Return a field that has the error code `code`."""
    return Field(json_schema_extra={"error_code": code}, **more)


def _unknown(value: Any) -> Any:
    """Return None for the "NA" that the contract writes where a value is unknown."""
    return None if value == "NA" else value


def _time(written: str) -> str:
    """Check that a text is a time, and return it unchanged, as it is stored. Raises ValueError."""
    # ISO 8601 as Python reads it takes any character before the hours, also one that the database refuses
    if not (written.isascii() and written.isprintable()):
        raise ValueError("not a time")
    discrepancies.instant(written, "UTC")
    return written


Clock = Annotated[int, AfterValidator(lambda value: hhmm("time", value))]
Week = Annotated[list[Clock], Field(min_length=7, max_length=7)] | Clock | None
Time = Annotated[str, Field(max_length=64), AfterValidator(_time)]
KnownTime = Annotated[Time | None, BeforeValidator(_unknown)]


class Item(BaseModel):
    """The report of the app on a decision, apart from the answers. Unknown fields are not stored.

    Texts are bounded, since they may be stored in a discrepancy, and numbers are those that a column holds.
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
        """Return the object that is stored: the fields and the answers, without the person's name."""
        return self.model_dump(exclude={"user_id"}) | answers


class BadItem(ValueError):
    """The refusal of an item for a missing or wrong field, which `code` and the message name.

    The message never holds the field's value.
    """

    def __init__(self, code: int, field: str) -> None:
        super().__init__(f"{field} is missing or wrong")
        self.code = code


def read(raw: dict[str, Any]) -> Item:
    """Read the item in `raw`. Raises BadItem."""
    try:
        return Item.model_validate(raw)
    except ValidationError as error:
        name = str(error.errors(include_input=False, include_url=False, include_context=False)[0]["loc"][0])
        raise BadItem(code_of(name), name) from None


def answers(raw: dict[str, Any], design: Design) -> dict[str, Any]:
    """Read the answers of `design` in `raw`. Raises BadItem for the first that is missing or wrong."""
    values = {}
    for name, check in design.answers.items():
        try:
            values[name] = check(name, _unknown(raw.get(name)))
        except ProtocolError:
            raise BadItem(code_of(name), name) from None
    return values


def code_of(name: str) -> int:
    """Return the error code of a field of `Item`."""
    field = Item.model_fields.get(name)
    extra = field.json_schema_extra if field else None
    code = extra.get("error_code") if isinstance(extra, dict) else None
    return code if isinstance(code, int) else NO_FIELD_CODE


def differences(item: Item, issued: Decision, zone: str) -> list[Difference]:
    """Return the differences between an item and the decision that was issued."""
    return discrepancies.differences(item.model_dump(), vars(issued), zone)


def tells_outcome(item: Item, issued: Decision, zone: str, outcome_lag: int) -> bool:
    """Return whether the answers of an item count for the outcome of its decision."""
    return discrepancies.tells_outcome(item.model_dump(), vars(issued), zone, outcome_lag)

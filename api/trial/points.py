"""What is asked for a decision: the survey of MiWaves, or the answers of any other protocol."""

from typing import Annotated, Any, Literal

from pydantic import Field

from algorithm.core.checks import ProtocolError, section
from algorithm.trial.designs.design import Design
from algorithm.trial.designs.miwaves import MiWaves
from api.core.endpoint import MOST_ERRORS, Body
from api.core.fields import DecisionIndex, Instant, Printable, Zone, coded
from services.core.faults import CoreFault
from services.core.refusals import Fault, FieldError, Refusal
from services.trial.faults import TrialFault

Use = Annotated[float, Field(ge=-1e6, le=1e6)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Answer = bool | Number | Annotated[list[Number], Field(max_length=100)] | None
AVAILABLE = "False where the participant must not get a message now: nothing is randomised."
COMES_LATER = "comes with the survey data of the study's back end: it is not known before the action"


class Survey(Body):
    """The survey answers that come with a decision point."""

    user_id: Printable = coded(TrialFault.ACTION_USER, examples=["p-017"])
    finished_ema: bool = coded(TrialFault.FINISHED_EMA, examples=[True])
    app_use_flag: bool = coded(TrialFault.APP_USE_FLAG, examples=[False])
    activity_question_response: bool | Literal["NA"] | None = coded(
        TrialFault.ACTIVITY_RESPONSE, default=None, examples=[True]
    )
    cannabis_use: Annotated[list[Use], Field(max_length=100)] | Literal["NA"] | None = coded(
        TrialFault.CANNABIS_USE, default=None, examples=[[2, 3]]
    )
    decision_index: DecisionIndex | None = coded(CoreFault.FIELD, default=None, examples=[1])
    decision_time: Instant | None = coded(CoreFault.FIELD, default=None)
    timezone: Zone | None = coded(TrialFault.TIMEZONE, default=None)
    available: bool | None = coded(CoreFault.FIELD, default=None, description=AVAILABLE)

    def missing(self) -> list[tuple[Fault, str]]:
        """What a finished survey must have and this one has not, as (fault, field)."""
        if not self.finished_ema:
            return []
        found: list[tuple[Fault, str]] = []
        if not isinstance(self.activity_question_response, bool):
            found.append((TrialFault.ACTIVITY_RESPONSE, "activity_question_response"))
        if not isinstance(self.cannabis_use, list):
            found.append((TrialFault.CANNABIS_USE, "cannabis_use"))
        return found

    def given(self, design: Design) -> dict[str, Any]:
        """The answers as the protocol reads them: "NA" is None. That of availability only where it is no.

        Raises Refusal where the protocol's answers are no survey."""
        if not isinstance(design, MiWaves):
            raise _another_call(design, "finished_ema", "/decision_points")
        activity, use = self.activity_question_response, self.cannabis_use
        told = {"available": False} if self.available is False else {}
        return told | {
            "finished_ema": self.finished_ema,
            "app_use_flag": self.app_use_flag,
            "activity_question_response": None if activity == "NA" else activity,
            "cannabis_use": None if use == "NA" else use,
        }


class DecisionPoint(Body):
    """A decision point under a protocol other than MiWaves, with what is known of it before the action."""

    user_id: Printable = coded(TrialFault.ACTION_USER, examples=["p-017"])
    answers: dict[str, Answer] = coded(
        CoreFault.FIELD,
        default_factory=dict,
        max_length=50,
        examples=[{}],
        description="The protocol's answers by name (docs/protocol.md); none where they come later.",
    )
    decision_index: DecisionIndex | None = coded(CoreFault.FIELD, default=None, examples=[1])
    decision_time: Instant | None = coded(CoreFault.FIELD, default=None)
    timezone: Zone | None = coded(TrialFault.TIMEZONE, default=None)
    available: bool | None = coded(CoreFault.FIELD, default=None, description=AVAILABLE)

    def given(self, design: Design) -> dict[str, Any]:
        """The answers, checked; that of availability only where it is no. Raises Refusal."""
        if isinstance(design, MiWaves):
            raise _another_call(design, "answers", "/actions")
        told = {"available": False} if self.available is False else {}
        return told | (self._checked(design) if design.outcome_lag else self._none())

    def _checked(self, design: Design) -> dict[str, Any]:
        try:
            found: dict[str, Any] = section(design.answers, {})("answers", self.answers)
        except ProtocolError as error:
            problem = str(error).removeprefix(f"{error.key}: ")
            raise Refusal(CoreFault.FIELD, errors=[FieldError(field=error.key, message=problem)]) from None
        return found

    def _none(self) -> dict[str, Any]:
        if self.answers:
            names = list(self.answers)[:MOST_ERRORS]
            errors = [FieldError(field=f"answers.{name}", message=COMES_LATER) for name in names]
            raise Refusal(CoreFault.FIELD, errors=errors)
        return {}


Asked = Survey | DecisionPoint


def _another_call(design: Design, field: str, path: str) -> Refusal:
    told = f"The study's protocol is {design.name}: its decisions are asked for at POST {path}."
    return Refusal(CoreFault.FIELD, told, errors=[FieldError(field=field, message="is not of this protocol")])

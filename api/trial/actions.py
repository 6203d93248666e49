"""The calls for a decision: the survey of MiWaves, or the answers of any other protocol."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from algorithm.core.checks import ProtocolError, section
from algorithm.trial.designs.design import Design
from algorithm.trial.designs.miwaves import MiWaves
from api.core import broker
from api.core.endpoint import MOST_ERRORS, Body, Domain, Reply
from api.core.fields import DecisionIndex, Instant, Printable, Zone, coded
from api.trial.examples import EXAMPLES
from models.core.session import transact, transact_at
from services.core.callers import Caller
from services.core.faults import CoreFault
from services.core.refusals import Fault, FieldError, Refusal
from services.trial import corrections
from services.trial import decide as service
from services.trial.decide import DecisionCall
from services.trial.faults import TrialFault

Use = Annotated[float, Field(ge=-1e6, le=1e6)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Answer = bool | Number | Annotated[list[Number], Field(max_length=100)] | None
AVAILABLE = "False where the participant must not get a message now: nothing is randomised."
COMES_LATER = "comes with the survey data of the study's back end: it is not known before the action"


class Decided(Reply):
    """A decision. `action` is 1 if seed / 2^53 < act_prob, else 0, so that anybody can check the draw.

    Where a rule of the protocol's safety envelope forbids a message, `available` is false, `unavailable_rule`
    names it, and nothing was randomised: act_prob and action are 0.
    """

    model_config = ConfigDict(from_attributes=True)

    rid: int = Field(validation_alias="id")
    action: Literal[0, 1]
    seed: int
    act_prob: float
    policy_id: int | None
    decision_index: int
    act_gen_timestamp: datetime
    state: list[float] | None
    fallback_level: str
    available: bool
    unavailable_rule: str | None
    correction_stored: bool = False


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
        """Return the answers that a finished survey must have and this one lacks, as (fault, field)."""
        missing: list[tuple[Fault, str]] = []
        if self.finished_ema and not isinstance(self.activity_question_response, bool):
            missing.append((TrialFault.ACTIVITY_RESPONSE, "activity_question_response"))
        if self.finished_ema and not isinstance(self.cannabis_use, list):
            missing.append((TrialFault.CANNABIS_USE, "cannabis_use"))
        return missing

    def answers_by(self, design: Design) -> dict[str, Any]:
        """Return the answers as the protocol reads them: "NA" is None, `available` is there only where false.

        Raises Refusal where the protocol's answers are no survey.
        """
        if not isinstance(design, MiWaves):
            raise _another_call(design, "finished_ema", "/decision_points")
        activity, use = self.activity_question_response, self.cannabis_use
        availability = {"available": False} if self.available is False else {}
        return availability | {
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

    def answers_by(self, design: Design) -> dict[str, Any]:
        """Return the answers, checked; `available` is among them only where false. Raises Refusal."""
        if isinstance(design, MiWaves):
            raise _another_call(design, "answers", "/actions")
        if not design.outcome_lag and self.answers:
            names = list(self.answers)[:MOST_ERRORS]
            errors = [FieldError(field=f"answers.{name}", message=COMES_LATER) for name in names]
            raise Refusal(CoreFault.FIELD, errors=errors)
        try:
            answers = section(design.answers, {})("answers", self.answers) if design.outcome_lag else {}
        except ProtocolError as error:
            problem = str(error).removeprefix(f"{error.key}: ")
            raise Refusal(CoreFault.FIELD, errors=[FieldError(field=error.key, message=problem)]) from None
        return answers | ({"available": False} if self.available is False else {})


def _another_call(design: Design, field: str, path: str) -> Refusal:
    """Return the refusal of a call that belongs to protocols of another kind."""
    message = f"The study's protocol is {design.name}: its decisions are asked for at POST {path}."
    return Refusal(
        CoreFault.FIELD, message, errors=[FieldError(field=field, message="is not of this protocol")]
    )


domain = Domain("actions", __doc__, EXAMPLES)
deciding = partial(
    domain.operation,
    "POST",
    roles={"client", "admin"},
    faults=(
        TrialFault.ACTION_UNKNOWN,
        TrialFault.NOT_DECIDING,
        TrialFault.INDEX_PASSED,
        TrialFault.OUTSIDE_DATES,
    ),
    standing_is_read_by_view=True,
)


@deciding("/actions")
def decide(body: Survey, caller: Caller, key: str | None) -> Decided:
    """Decide at a participant's decision point.

    The point is randomised once. The same point asked for again gives the stored decision, whatever happened
    in between; answers that differ from the first are kept as a correction and change nothing.
    """
    missing = body.missing()
    if missing:
        raise Refusal(
            missing[0][0], errors=[FieldError(field=field, message=fault.message) for fault, field in missing]
        )
    return _decided(body, caller, key)


@deciding("/decision_points")
def decide_point(body: DecisionPoint, caller: Caller, key: str | None) -> Decided:
    """Decide at a participant's decision point, under any protocol but MiWaves.

    All is as with /actions, but for the answers: they are those that the study's protocol names.
    """
    return _decided(body, caller, key)


def _decided(body: Survey | DecisionPoint, caller: Caller, key: str | None) -> Decided:
    """Decide, send the jobs that this queued, and keep answers that correct earlier ones. Raises Refusal."""
    call = DecisionCall(
        body.user_id,
        body.decision_index,
        body.decision_time,
        body.timezone,
        body.available is not False,
        body.answers_by,
    )
    outcome = transact(service.decide, caller, call, key, datetime.now(UTC))
    broker.send(*outcome.jobs)
    if outcome.correction is not None:  # in a transaction of its own: see corrections.keep
        transact_at("READ COMMITTED", corrections.keep, caller.actor, outcome.correction)
    decided = Decided.model_validate(outcome.decision)
    decided.correction_stored = outcome.correction is not None
    return decided

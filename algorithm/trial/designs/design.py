"""The design of a trial, as the learner needs it: the interface that each concrete intervention trial
fills."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from algorithm.core.arrays import Floats
from algorithm.core.checks import Check

State = tuple[float, ...]
Answers = Mapping[str, Any]


class StateUnavailable(ValueError):
    """The state at a decision point cannot be computed from the known answers; the message says why."""


@dataclass(frozen=True, slots=True)
class Point:
    """One decision point of one participant.

    `index` counts decision points from 1. `evening` is the time of day. `answers` are the answers known of
    this point, None if none came. `reward` is the reward whose outcome was observed with this point's answers
    where the protocol's outcome lag is 1, and the reward of this point's own action where the lag is 0.
    `action` is 1 when a message was sent, 0 when not, None while undecided."""

    index: int
    evening: bool
    answers: Answers | None
    reward: float | None
    action: int | None


class Design(Protocol):
    """Reward, state and features of one trial. Each file beside this one holds one implementation.

    The advantage of action 1 in state s is features(s)'beta, q numbers; the learner's coefficient vector has
    three blocks of q (baseline, action probability, centred action), so p = 3 q.
    """

    @property
    def name(self) -> str:
        """The name by which protocol documents ask for this design."""

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the s state variables, in order."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the q features, in order."""

    @property
    def feature_version(self) -> str:
        """A name that changes whenever the meaning of a state variable, a feature or the reward changes."""

    @property
    def reward_sd(self) -> float:
        """The reward's standard deviation in reward units, the scale of the activation gate's default
        bound."""

    @property
    def history(self) -> int:
        """The number of earlier decision points that `state` looks at."""

    @property
    def outcome_lag(self) -> int:
        """The decision points from an action to its outcome's report. 1: the outcome of action t is reported
        at point t + 1. 0: it is recorded with point t itself."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The sections `prior`, `allocation`, `state` and `schedule` of this design's default document, and
        the `sigma_u0` of its section `hyperparameters`."""

    @property
    def answers(self) -> Mapping[str, Check]:
        """A check for each answer of a decision point, by name. An answer may be null where its check takes
        null. With an outcome lag of 1 answers come with the call that asks for the decision, and the study's
        back end reports them again; with 0 they come from the back end alone, after the action."""

    @property
    def state_checks(self) -> Mapping[str, Check]:
        """A check for each key of the document's `state` section."""

    def reward(self, answers: Answers, parameters: Mapping[str, Any]) -> float | None:
        """Return the reward that `answers` report, None where they report none. `parameters` is the
        document's `state` section."""

    def state(self, point: Point, earlier: Sequence[Point], parameters: Mapping[str, Any]) -> State:
        """Return the state at `point`. `earlier` holds points of lower index in any order. Raises
        StateUnavailable."""

    def features(self, states: Any) -> Floats:
        """Return the features (..., q) of states (..., s)."""

    def states(self) -> tuple[State, ...]:
        """Return all states where there are finitely many, else a small set that spans them. Tables of
        policies show these states."""

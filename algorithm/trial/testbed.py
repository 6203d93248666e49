"""Synthetic participants for simulations, benchmarks and rehearsals. All randomness comes from the generator
that is passed in.

A participant answers decision t with a reward of class 0 to 3, drawn from a multinomial logistic model in
z and a z, where z = [1, survey, app, cannabis, weekend, day] at t and a is the action. Coefficients
differ from participant to participant (`testbed_coefficients`). Everything random about a participant is
drawn beforehand, so answers are a pure function of the actions: a participant who is asked twice answers the
same, and two algorithms can meet the same people."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from algorithm.core.arrays import Bools, Floats, Ints, frozen
from algorithm.trial.testbed_coefficients import GROUPS, Group

EFFECTS = {"minimal": None, "low": 0.7, "high": 2.5}
"""The factor on the action coefficient, by name; None leaves everything as drawn."""
CLASSES = 4
POINTS_PER_DAY = 2
_ACTION = 6
_DECAY = [(5 / 6) ** k for k in range(6)]
_DOSE_WEIGHTS = frozen([weight / sum(_DECAY) for weight in _DECAY])


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """A group of m participants: `coefficients` (m, 4, 12) and `possible` (m, 4) by reward class,
    `habituation` (m, 4), the gain of each class's logit per unit of dose (0 for participants who do not
    habituate), `survey_rate` (m,) and `use_rate` (m,)."""

    coefficients: Floats
    possible: Bools
    habituation: Floats
    survey_rate: Floats
    use_rate: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """The course of m participants over T decision points, which does not depend on the actions: `z`
    (m, T, 6), the cannabis `amount` (m, T), and the uniform numbers `luck` (m, T) that turn reward
    probabilities into rewards."""

    z: Floats
    amount: Ints
    luck: Floats


@dataclass(frozen=True, slots=True)
class Response:
    """The reward that follows an action, and the survey answers that report it at the next decision point."""

    reward: int
    answers: dict[str, Any]


def draw_cohort(
    generator: np.random.Generator, participants: int, effect: str = "minimal", habituating: float = 0.0
) -> Cohort:
    """Draw `participants` people. `effect` names one of EFFECTS, and the first `habituating` share of the
    participants habituate."""
    weights = np.array([group.weight for group in GROUPS])
    kinds = generator.choice(len(GROUPS), size=participants, p=weights / weights.sum())
    coefficients = np.zeros((participants, CLASSES, 12))
    for person, kind in enumerate(kinds):
        coefficients[person] = _coefficients(generator, GROUPS[kind], EFFECTS[effect])
    possible = np.array([[c in GROUPS[kind].classes for c in range(CLASSES)] for kind in kinds])
    # a class's gain is its mean baseline coefficient, with the signs of all classes of a participant flipped
    # where the lowest class's is negative: so a dose moves everybody towards the lowest reward they can give
    gains: Floats = coefficients[:, :, :_ACTION].mean(axis=2)
    lowest = gains[np.arange(len(gains)), possible.argmax(axis=1)]  # argmax: the first possible class
    gains = np.where(lowest[:, None] < 0, -gains, gains)
    habituates = np.arange(participants) < round(habituating * participants)
    return Cohort(
        coefficients,
        possible,
        habituates[:, None] * gains,
        generator.beta(4, 1.7, participants),
        generator.beta(3, 2, participants),
    )


def _coefficients(generator: np.random.Generator, group: Group, factor: float | None) -> Floats:
    """Draw the coefficients of a participant, (4, 12). The rows of classes outside the group are zero.

    With a `factor`, class 0's action coefficient changes places with the smallest one, classes 2 and 3 take
    the mean of theirs, and all are scaled."""
    coefficients = np.zeros((CLASSES, 12))
    for reward, (mean, sd) in group.rows.items():
        coefficients[reward] = generator.normal(mean, sd)
    members = list(group.classes)
    # only differences between classes matter: two classes have opposite signs, more of them a mean of 0
    if len(members) == 2:
        coefficients[members[0]] = -coefficients[members[1]]
    else:
        coefficients[members] -= coefficients[members].mean(axis=0)
    if factor is not None:
        action = coefficients[:, _ACTION]  # a view, so that it changes the coefficients
        if members[0] == 0:
            smallest = members[int(np.argmin(action[members]))]
            action[[0, smallest]] = action[[smallest, 0]]
        action[2:] = action[2:].mean()
        action *= factor
    return coefficients


def draw_course(generator: np.random.Generator, cohort: Cohort, decisions: int) -> Course:
    """Draw `decisions` decision points, two a day from a Monday morning on."""
    m = len(cohort.survey_rate)
    survey = generator.random((m, decisions)) < cohort.survey_rate[:, None]
    seconds = generator.exponential(350, (m, decisions))
    uses = generator.random((m, decisions)) < cohort.use_rate[:, None]
    amount = np.where(uses, 1 + generator.poisson(1.17, (m, decisions)), 0)
    day = np.arange(decisions) // POINTS_PER_DAY
    calendar = np.broadcast_to(np.stack([day % 7 >= 5, (day - 14.5) / 14.5], axis=-1), (m, decisions, 2))
    own = np.stack([np.ones((m, decisions)), survey, (seconds - 350) / 350, (amount - 1.3) / 1.35], axis=-1)
    return Course(np.concatenate([own, calendar], axis=-1), amount, generator.random((m, decisions)))


def dose(earlier: Ints) -> Floats:
    """Return the habituation dose (m,) after the actions `earlier` (m, k), oldest first: a weighted mean of
    the last six, the latest weighing most, with 0 for points before the study."""
    recent = earlier[:, ::-1][:, : len(_DOSE_WEIGHTS)].astype(np.float64)
    doses: Floats = recent @ _DOSE_WEIGHTS[: recent.shape[1]]
    return doses


def class_probabilities(cohort: Cohort, z: Floats, action: Ints, dose: Floats) -> Floats:
    """Return the probability (m, 4) of each reward class; `z` (m, 6), `action` (m,), `dose` (m,)."""
    inputs = np.concatenate([z, action[:, None] * z], axis=1)
    logits = (cohort.coefficients @ inputs[:, :, None])[:, :, 0] + dose[:, None] * cohort.habituation
    odds = np.where(cohort.possible, np.exp(logits), 0.0)  # classes outside the group have no chance
    probabilities: Floats = odds / odds.sum(axis=1, keepdims=True)
    return probabilities


def rewards(cohort: Cohort, course: Course, t: int, earlier: Ints, action: Ints) -> Ints:
    """Return the rewards (m,) that follow `action` (m,) at decision point `t` (from 0), after the actions
    `earlier` (m, k)."""
    chances = class_probabilities(cohort, course.z[:, t], action, dose(earlier))
    classes: Ints = (chances.cumsum(axis=1)[:, :-1] <= course.luck[:, t, None]).sum(axis=1)
    return classes


@dataclass(frozen=True, slots=True, eq=False)
class Participant:
    """One synthetic participant, decision point by decision point."""

    cohort: Cohort
    course: Course

    def respond(self, decision_index: int, action: int, previous: Sequence[int]) -> Response:
        """Return the reward that follows `action` at `decision_index` (from 1), and the answers that the
        participant's app reports at the next decision point. `previous` are the earlier actions, oldest
        first."""
        t = decision_index - 1
        earlier = np.array(previous, dtype=np.int64).reshape(1, -1)
        reward = int(rewards(self.cohort, self.course, t, earlier, np.array([action]))[0])
        return Response(reward, answers(reward, int(self.course.amount[0, t])))


def draw_participant(
    generator: np.random.Generator, decisions: int = 60, effect: str = "minimal", habituates: bool = False
) -> Participant:
    """Draw one participant with everything that will happen at `decisions` decision points."""
    cohort = draw_cohort(generator, 1, effect, float(habituates))
    return Participant(cohort, draw_course(generator, cohort, decisions))


def answers(reward: int, amount: int) -> dict[str, Any]:
    """Return the survey answers that report `reward`: 3 finished, suggestion used; 2 finished; 1 app used; 0
    neither. The cannabis amount is reported when the survey was finished, as that many of the past twelve
    hours."""
    finished = reward >= 2
    return {
        "finished_ema": finished,
        "app_use_flag": reward == 1,
        "activity_question_response": reward == 3 if finished else None,
        "cannabis_use": list(range(1, min(amount, 12) + 1)) if finished else None,
    }

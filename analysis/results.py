"""The analyses of an export, as their commands and the report show them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from algorithm.core.arrays import Floats
from analysis import offpolicy, randomisation, wcls
from analysis.export_reader import BadExport, Export
from analysis.long_table import Trial, design_matrix, independent
from analysis.policies import alternative

MANY = 20
"""The number of values up to which a variable forms cells."""


@dataclass(frozen=True, slots=True, eq=False)
class EffectTable:
    """The effects of a message with one row of `estimates` for each of `names`; `joint_p` tests them all."""

    names: tuple[str, ...]
    estimates: tuple[wcls.Estimate, ...]
    joint_p: float
    freedom: int
    participants: int
    rows: int


def effects(
    trial: Trial,
    moderators: Sequence[str] = (),
    controls: Sequence[str] | None = None,
    by_state: bool = False,
    level: float = 0.95,
    corrected: bool = True,
) -> EffectTable:
    """Estimate the effects by WCLS on an intercept and `moderators`. Without `controls`, these are the state,
    the study day and the moderators. The numerator is the mean probability, or, with `by_state`, its mean in
    each cell of the moderators.

    Raises ValueError where the rows do not determine the effects."""
    rows = trial.complete
    f = design_matrix(trial, list(moderators))[rows]
    g = controls_matrix(trial, moderators, controls)[rows]
    if not (np.isfinite(f).all() and np.isfinite(g).all()):
        raise BadExport("a moderator or control is null at a decision that counts")
    g = g[:, independent(g)]
    probability = trial.column("act_prob")[rows]
    numerator = None
    if by_state and moderators:
        if any(len(np.unique(column)) > MANY for column in f.T):
            raise BadExport(f"a numerator by state needs moderators of at most {MANY} values each")
        numerator = wcls.numerator_by(f, probability)
    outcome, action = trial.column("outcome")[rows], trial.column("action")[rows]
    who = trial.participant[rows]
    fitted = wcls.fit(outcome, action, probability, who, f, g, numerator, corrected=corrected)
    return EffectTable(
        ("message", *(f"message x {name}" for name in moderators)),
        tuple(fitted.coefficients(level)),
        fitted.joint_p(),
        fitted.freedom,
        fitted.participants,
        fitted.rows,
    )


def controls_matrix(trial: Trial, moderators: Sequence[str], controls: Sequence[str] | None) -> Floats:
    """Return the controls with their intercept, (n, q)."""
    if controls is not None:
        return design_matrix(trial, list(controls))
    return np.column_stack([design_matrix(trial, list(moderators)), trial.covariates()])


def effect_by_day(trial: Trial, level: float = 0.95) -> list[tuple[int, wcls.Estimate]]:
    """Return the effect of a message on each study day that has enough rows for it: from the rows of that day
    alone, with the state as controls."""
    effects = []
    days = trial.column("study_day")
    for day in np.unique(days[trial.complete]).astype(int):
        rows = trial.complete & (days == day)
        intercept = np.ones((int(rows.sum()), 1))
        g = np.column_stack([intercept, trial.states()[rows]])
        g = g[:, independent(g)]
        outcome, action, p = (trial.column(name)[rows] for name in ("outcome", "action", "act_prob"))
        try:
            fitted = wcls.fit(outcome, action, p, trial.participant[rows], intercept, g)
            effects.append((int(day), fitted.coefficients(level)[0]))
        except ValueError:
            continue  # too few rows on this day
    return effects


def effect_over_days(trial: Trial, level: float = 0.95) -> list[tuple[int, wcls.Estimate]]:
    """Return the effect on each study day from one fit in which it changes linearly. The list is empty where
    the rows do not determine it."""
    rows = trial.complete
    f = design_matrix(trial, ["day"])[rows]
    g = controls_matrix(trial, ["day"], None)[rows]
    g = g[:, independent(g)]
    outcome, action, p = (trial.column(name)[rows] for name in ("outcome", "action", "act_prob"))
    try:
        fitted = wcls.fit(outcome, action, p, trial.participant[rows], f, g)
    except ValueError:
        return []
    days = np.unique(trial.column("study_day")[rows]).astype(int)
    return [(int(day), fitted.effect(np.array([1.0, day - 1.0]), level)) for day in days]


@dataclass(frozen=True, slots=True, eq=False)
class RandomisationCheck:
    """Observed against expected messages: `overall`, and in each set of disjoint `groups`, with the p-value
    of the set; and the `balance` of the variables that were known before decisions."""

    overall: randomisation.Count
    groups: dict[str, tuple[list[randomisation.Count], float]]
    balance: list[randomisation.Balance]


def randomisation_check(trial: Trial) -> RandomisationCheck:
    """Check the randomisation over all randomised decisions."""
    rows = trial.randomised
    action, probability = trial.column("action")[rows], trial.column("act_prob")[rows]
    ids, evening = trial.column("policy_id")[rows], trial.column("evening")[rows]
    groupings = {
        "by policy": ["no policy" if np.isnan(number) else f"policy {number:.0f}" for number in ids],
        "by time of day": ["evening" if is_evening else "morning" for is_evening in evening],
    }
    states = [label for label, randomised in zip(trial.labels(), rows, strict=True) if randomised]
    if len(set(states)) <= MANY:
        groupings["by state"] = ["state unknown" if "nan" in label else label for label in states]

    def order(count: randomisation.Count) -> tuple[str, int]:
        # policy 10 comes after policy 9
        head, _, number = count.name.rpartition(" ")
        return (head, int(number)) if number.isdigit() else (count.name, 0)

    groups = {}
    for name, labels in groupings.items():
        counts = sorted(randomisation.counts(labels, action, probability), key=order)
        groups[name] = (counts, randomisation.together(counts))
    # the balance needs states and weights: rows with a known state and a probability within (0, 1)
    within = (trial.column("act_prob") > 0) & (trial.column("act_prob") < 1)
    weighted = rows & np.isfinite(trial.states()).all(axis=1) & within
    sent, p = trial.column("action")[weighted], trial.column("act_prob")[weighted]
    variables = {name: trial.variable(name)[weighted] for name in (*trial.state_names, "day")}
    balances = [randomisation.balance(name, values, sent, p) for name, values in variables.items()]
    return RandomisationCheck(randomisation.count("all decisions", action, probability), groups, balances)


def other_value(export: Export, trial: Trial, name: str, level: float = 0.95) -> offpolicy.Value:
    """Return the value of the policy called `name` (see `alternative`). Raises BadExport where it does not
    give a probability at every decision."""
    rows = trial.complete
    other = alternative(export, trial, name)[rows]
    if not np.isfinite(other).all():
        missing = int((~np.isfinite(other)).sum())
        raise BadExport(
            f"{name} gives no probability at {missing} decisions: blocks are not kept or unusable"
        )
    outcome, action, p = (trial.column(column)[rows] for column in ("outcome", "action", "act_prob"))
    who, covariates = trial.participant[rows], trial.covariates()[rows]
    return offpolicy.value(outcome, action, p, other, who, covariates, level)


@dataclass(frozen=True, slots=True)
class Day:
    """The course of a study day: the shares of the decision points due that were decided and whose outcome
    was observed, the mean outcome, and the share of available decisions with a message."""

    day: int
    due: int
    decided: float
    observed: float
    outcome: float
    sent: float


def engagement(trial: Trial) -> list[Day]:
    """Return the course of each study day."""
    study_day, course = trial.column("study_day"), []
    for number in np.unique(study_day).astype(int):
        rows = study_day == number
        outcome, decided = trial.column("outcome")[rows], trial.column("decided")[rows] == 1
        observed, randomised = np.isfinite(outcome), trial.randomised & rows
        mean = float(outcome[observed].mean()) if observed.any() else float("nan")
        sent = float(trial.column("action")[randomised].mean()) if randomised.any() else float("nan")
        shares = float(decided.mean()), float(observed.mean())
        course.append(Day(int(number), int(rows.sum()), *shares, mean, sent))
    return course

"""The analyses of an export, as their commands and the report show them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from algorithm.core.arrays import Bools, Floats
from analysis import offpolicy, randomisation, wcls
from analysis.export_reader import BadExport, Export
from analysis.long_table import Trial, design_matrix, independent
from analysis.policies import alternative

MANY = 20
"""Values above which a variable is no set of cells."""


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
    """WCLS on an intercept and `moderators`; `controls` None: the state, the study day, the moderators. The
    numerator is the mean probability, or its mean in each cell of the moderators where `by_state`.

    Raises ValueError where the rows do not determine the effects."""
    rows = trial.known
    f = design_matrix(trial, list(moderators))[rows]
    g = controls_matrix(trial, moderators, controls)[rows]
    if not (np.isfinite(f).all() and np.isfinite(g).all()):
        raise BadExport("a moderator or control is null at a decision that counts")
    g = g[:, independent(g)]
    probability = trial.column("act_prob")[rows]
    numerator = wcls.numerator_by(_cells(f), probability) if by_state and moderators else None
    outcome, action = trial.column("outcome")[rows], trial.column("action")[rows]
    who = trial.participant[rows]
    found = wcls.fit(outcome, action, probability, who, f, g, numerator, corrected=corrected)
    return EffectTable(
        ("message", *(f"message x {name}" for name in moderators)),
        tuple(found.coefficients(level)),
        found.joint_p(),
        found.freedom,
        found.participants,
        found.rows,
    )


def controls_matrix(trial: Trial, moderators: Sequence[str], controls: Sequence[str] | None) -> Floats:
    """The controls with their intercept, (n, q)."""
    if controls is not None:
        return design_matrix(trial, list(controls))
    return np.column_stack([design_matrix(trial, list(moderators)), trial.covariates()])


def _cells(moderators: Floats) -> Floats:
    for column in moderators.T:
        if len(np.unique(column)) > MANY:
            raise BadExport(f"a numerator by state needs moderators of at most {MANY} values each")
    return moderators


def effect_by_day(trial: Trial, level: float = 0.95) -> list[tuple[int, wcls.Estimate]]:
    """The effect of a message on each study day that has enough rows for one: from the rows of that day
    alone, with the state as controls."""
    found = []
    days = trial.column("study_day")
    for day in np.unique(days[trial.known]).astype(int):
        one = _day(trial, trial.known & (days == day), level)
        if one is not None:
            found.append((int(day), one))
    return found


def _day(trial: Trial, rows: Bools, level: float) -> wcls.Estimate | None:
    g = np.column_stack([np.ones(rows.sum()), trial.states()[rows]])
    g = g[:, independent(g)]
    probability, one = trial.column("act_prob")[rows], np.ones((int(rows.sum()), 1))
    outcome, action = trial.column("outcome")[rows], trial.column("action")[rows]
    try:
        return wcls.fit(outcome, action, probability, trial.participant[rows], one, g).coefficients(level)[0]
    except ValueError:
        return None


def effect_over_days(trial: Trial, level: float = 0.95) -> list[tuple[int, wcls.Estimate]]:
    """The effect on each study day from one fit in which it changes linearly. Empty where the rows do not
    determine it."""
    rows = trial.known
    f = design_matrix(trial, ["day"])[rows]
    g = controls_matrix(trial, ["day"], None)[rows]
    g = g[:, independent(g)]
    outcome, action, p = (trial.column(name)[rows] for name in ("outcome", "action", "act_prob"))
    try:
        found = wcls.fit(outcome, action, p, trial.participant[rows], f, g)
    except ValueError:
        return []
    days = np.unique(trial.column("study_day")[rows]).astype(int)
    return [(int(day), found.effect(np.array([1.0, day - 1.0]), level)) for day in days]


@dataclass(frozen=True, slots=True, eq=False)
class RandomisationCheck:
    """Observed against expected messages: `overall`, and in each set of disjoint `groups`, with the p-value
    of the set; and the `balance` of what was known before decisions."""

    overall: randomisation.Count
    groups: dict[str, tuple[list[randomisation.Count], float]]
    balance: list[randomisation.Balance]


def randomisation_check(trial: Trial) -> RandomisationCheck:
    """The check over all randomised decisions."""
    rows = trial.randomised
    action, probability = trial.column("action")[rows], trial.column("act_prob")[rows]
    groups = {}
    for name, labels in _groupings(trial, rows).items():
        found = sorted(randomisation.counts(labels, action, probability), key=lambda one: _natural(one.name))
        groups[name] = (found, randomisation.together(found))
    return RandomisationCheck(
        randomisation.count("all decisions", action, probability), groups, _balances(trial)
    )


def _groupings(trial: Trial, rows: Bools) -> dict[str, list[str]]:
    policy = [
        "no policy" if np.isnan(one) else f"policy {one:.0f}" for one in trial.column("policy_id")[rows]
    ]
    evening = ["evening" if one else "morning" for one in trial.column("evening")[rows]]
    found = {"by policy": policy, "by time of day": evening}
    states = [label for label, chosen in zip(trial.labels(), rows, strict=True) if chosen]
    if len(set(states)) <= MANY:
        found["by state"] = ["state unknown" if "nan" in label else label for label in states]
    return found


def _natural(name: str) -> tuple[str, int]:
    head, _, number = name.rpartition(" ")
    return (head, int(number)) if number.isdigit() else (name, 0)


def _balances(trial: Trial) -> list[randomisation.Balance]:
    within = (trial.column("act_prob") > 0) & (trial.column("act_prob") < 1)
    rows = trial.randomised & np.isfinite(trial.states()).all(axis=1) & within
    action, probability = trial.column("action")[rows], trial.column("act_prob")[rows]
    return [
        randomisation.balance(name, trial.variable(name)[rows], action, probability)
        for name in (*trial.state_names, "day")
    ]


def other_value(export: Export, trial: Trial, name: str, level: float = 0.95) -> offpolicy.Value:
    """The value of the policy called `name` (see `alternative`). Raises BadExport where it does not give a
    probability at every decision."""
    rows = trial.known
    other = alternative(export, trial, name)[rows]
    if not np.isfinite(other).all():
        unknown = int((~np.isfinite(other)).sum())
        raise BadExport(
            f"{name} gives no probability at {unknown} decisions: blocks are not kept or unusable"
        )
    outcome, action, p = (trial.column(column)[rows] for column in ("outcome", "action", "act_prob"))
    who, covariates = trial.participant[rows], trial.covariates()[rows]
    return offpolicy.value(outcome, action, p, other, who, covariates, level)


@dataclass(frozen=True, slots=True)
class Day:
    """How a study day went: shares of the decision points due that were decided and whose outcome was
    observed, the mean outcome, and the share of available decisions with a message."""

    day: int
    due: int
    decided: float
    observed: float
    outcome: float
    sent: float


def engagement(trial: Trial) -> list[Day]:
    """One Day for each study day."""
    days = trial.column("study_day")
    return [_engagement(trial, int(day), days == day) for day in np.unique(days).astype(int)]


def _engagement(trial: Trial, day: int, rows: Bools) -> Day:
    outcome, decided = trial.column("outcome")[rows], trial.column("decided")[rows] == 1
    seen, random = np.isfinite(outcome), trial.randomised & rows
    mean = float(outcome[seen].mean()) if seen.any() else float("nan")
    sent = float(trial.column("action")[random].mean()) if random.any() else float("nan")
    return Day(day, int(rows.sum()), float(decided.mean()), float(seen.mean()), mean, sent)

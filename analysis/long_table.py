"""The long table of a trial as arrays, and the parts of it that estimators take."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from algorithm.core.arrays import Bools, Floats, Ints
from analysis.export_reader import BadExport, Export, Table

STATE = "state_"


@dataclass(frozen=True, eq=False)
class Trial:
    """The long table: one row for each decision point that was due, n rows. Null in the export is NaN
    here."""

    table: Table

    @cached_property
    def participant(self) -> Ints:
        """The participant of each row, (n,)."""
        return self.table.numbers("participant_id").astype(np.int64)

    @cached_property
    def randomised(self) -> Bools:
        """True for the rows where chance decided about a message, (n,): decided and available."""
        return np.asarray((self.column("decided") == 1) & (self.column("available") == 1))

    @cached_property
    def complete(self) -> Bools:
        """True for the rows that are randomised, with a known state and an observed outcome, (n,)."""
        states = [np.isfinite(self.column(STATE + name)) for name in self.state_names]
        observed = np.isfinite(self.column("outcome"))
        return np.asarray(np.all([self.randomised, observed, *states], axis=0))

    @property
    def state_names(self) -> tuple[str, ...]:
        """The state variables of the protocol, in order."""
        return tuple(name.removeprefix(STATE) for name in self.table.columns if name.startswith(STATE))

    def column(self, name: str) -> Floats:
        """Return a numeric column of the export, (n,). Raises BadExport."""
        return self.table.numbers(name)

    def variable(self, name: str) -> Floats:
        """Return the variable that a user calls `name`, (n,): a numeric column, a state variable without its
        prefix, or `day`, the study day minus 1. Raises BadExport."""
        if name == "day":
            return self.column("study_day") - 1
        return self.column(STATE + name if name in self.state_names else name)

    def states(self) -> Floats:
        """Return the state variables, (n, s)."""
        return np.column_stack([self.column(STATE + name) for name in self.state_names])

    def covariates(self) -> Floats:
        """Return the variables known before a decision: the state and the study day, (n, s + 1)."""
        return np.column_stack([self.states(), self.variable("day")])

    def missing(self) -> dict[str, int]:
        """Return the number of rows with an observed outcome, and of those without by the reason."""
        kinds = Counter(kind or "observed" for kind in self.table.list("outcome_missing"))
        return dict(sorted(kinds.items(), key=lambda item: (item[0] != "observed", -item[1])))

    def labels(self) -> list[str]:
        """Return the state of each row in words, such as `evening=1, recent_engagement=0`."""
        named = [zip(self.state_names, state, strict=True) for state in self.states()]
        return [", ".join(f"{name}={value:g}" for name, value in variables) for variables in named]


def load(export: Export) -> Trial:
    """Load the trial of an export. Raises BadExport where there is nothing to analyse."""
    trial = Trial(export.table("trial"))
    if not trial.randomised.any():
        raise BadExport("no decision of this trial was randomised yet")
    return trial


def design_matrix(trial: Trial, names: list[str]) -> Floats:
    """Return an intercept and the variables of these names, (n, 1 + k)."""
    return np.column_stack([np.ones(len(trial.participant)), *(trial.variable(name) for name in names)])


def independent(columns: Floats) -> list[int]:
    """Return the places of those of k columns (n, k) that are no linear combination of columns before
    them."""
    places: list[int] = []
    for place in range(columns.shape[1]):
        if np.linalg.matrix_rank(columns[:, [*places, place]]) > len(places):
            places.append(place)
    return places

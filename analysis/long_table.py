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
    """One row for each decision point that was due, n rows. What is null in the export is NaN here."""

    table: Table

    @cached_property
    def participant(self) -> Ints:
        """The participant of each row, (n,)."""
        return self.table.numbers("participant_id").astype(np.int64)

    @cached_property
    def randomised(self) -> Bools:
        """Where a message was sent or not by chance: decided and available, (n,)."""
        return np.asarray((self.column("decided") == 1) & (self.column("available") == 1))

    @cached_property
    def known(self) -> Bools:
        """Where the row is randomised, its state was known and its outcome was observed, (n,)."""
        states = [np.isfinite(self.column(STATE + name)) for name in self.state_names]
        observed = np.isfinite(self.column("outcome"))
        return np.asarray(np.all([self.randomised, observed, *states], axis=0))

    @property
    def state_names(self) -> tuple[str, ...]:
        """The state variables of the protocol, in order."""
        return tuple(name.removeprefix(STATE) for name in self.table.columns if name.startswith(STATE))

    def column(self, name: str) -> Floats:
        """A numeric column of the export, (n,). Raises BadExport."""
        return self.table.numbers(name)

    def variable(self, name: str) -> Floats:
        """What a user calls `name`: a numeric column, a state variable without its prefix, or `day`, the
        study day minus 1, (n,). Raises BadExport."""
        if name == "day":
            return self.column("study_day") - 1
        return self.column(STATE + name if name in self.state_names else name)

    def states(self) -> Floats:
        """The state variables, (n, s)."""
        return np.column_stack([self.column(STATE + name) for name in self.state_names])

    def covariates(self) -> Floats:
        """What a decision knew: the state and the study day, (n, s + 1)."""
        return np.column_stack([self.states(), self.variable("day")])

    def missing(self) -> dict[str, int]:
        """How many rows there are of each kind: observed, or why the outcome is missing."""
        kinds = Counter(kind or "observed" for kind in self.table.list("outcome_missing"))
        return dict(sorted(kinds.items(), key=lambda item: (item[0] != "observed", -item[1])))

    def labels(self) -> list[str]:
        """The state of each row in words, such as `evening=1, recent_engagement=0`."""
        names = self.state_names
        return [_label(names, row) for row in self.states()]


def _label(names: tuple[str, ...], row: Floats) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in zip(names, row, strict=True))


def load(export: Export) -> Trial:
    """The trial of an export. Raises BadExport where there is nothing to analyse."""
    trial = Trial(export.table("trial"))
    if not trial.randomised.any():
        raise BadExport("no decision of this trial was randomised yet")
    return trial


def design_matrix(trial: Trial, names: list[str]) -> Floats:
    """An intercept and the variables of these names, (n, k)."""
    return np.column_stack([np.ones(len(trial.participant)), *(trial.variable(name) for name in names)])


def independent(columns: Floats) -> list[int]:
    """The places of those of k columns (n, k) that the ones before them do not determine."""
    kept: list[int] = []
    for place in range(columns.shape[1]):
        if np.linalg.matrix_rank(columns[:, [*kept, place]]) > len(kept):
            kept.append(place)
    return kept

"""The learning rows of each participant, as the fit of a policy read them."""

from dataclasses import dataclass

import numpy as np

from algorithm.core.arrays import Floats, Ints
from algorithm.trial.designs.design import Design
from analysis.export_reader import Export
from analysis.long_table import Trial


@dataclass(frozen=True, slots=True, eq=False)
class OwnRows:
    """n learning rows in the order of `row_seq` (n,). A decision has several rows where its outcome was
    corrected. `participant`, `index` (n,), `features` (n, q), `action`, `act_prob` and `outcome` (n,)."""

    row_seq: Ints
    participant: Ints
    index: Ints
    features: Floats
    action: Floats
    act_prob: Floats
    outcome: Floats

    def of(self, participant: int, row_seq: int) -> "OwnRows":
        """Return the rows of a participant from which a policy with rows up to `row_seq` learnt, by index:
        the latest row of each decision."""
        rows = np.flatnonzero((self.participant == participant) & (self.row_seq <= row_seq))
        latest = {int(self.index[row]): int(row) for row in rows}
        places = np.array([latest[index] for index in sorted(latest)], dtype=np.int64)
        return OwnRows(*(getattr(self, name)[places] for name in OwnRows.__slots__))

    def sums(self, participant: int, row_seq: int) -> tuple[Floats, Floats]:
        """Return the statistics A (p, p) and b (p,) of the rows that `of` returns."""
        own = self.of(participant, row_seq)
        centred, pi = (own.action - own.act_prob)[:, None], own.act_prob[:, None]
        phi = np.hstack([own.features, pi * own.features, centred * own.features])
        return phi.T @ phi, phi.T @ own.outcome


def own_rows(export: Export, trial: Trial, design: Design) -> OwnRows:
    """Return all learning rows of an export, with the features and actions of their decisions."""
    table = export.table("learning_rows")
    order = np.argsort(table.numbers("row_seq"), kind="stable")
    rid = trial.column("rid")
    place = {int(rid[row]): int(row) for row in np.flatnonzero(np.isfinite(rid))}
    rows = np.array([place[int(number)] for number in table.numbers("decision_id")[order]], dtype=np.int64)
    return OwnRows(
        table.numbers("row_seq")[order].astype(np.int64),
        trial.participant[rows],
        trial.column("decision_index")[rows].astype(np.int64),
        design.features(trial.states()[rows]),
        trial.column("action")[rows],
        trial.column("act_prob")[rows],
        table.numbers("outcome")[order],
    )

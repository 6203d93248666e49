"""An export in memory, arranged the way the checks look things up."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from algorithm.core.arrays import Floats
from algorithm.trial.ladder import Block
from algorithm.trial.protocol import Protocol, ProtocolError, stored
from replay.format.long_table import Row

TABLES = (
    *("participants", "participant_zones", "protocols", "decisions", "answers", "discrepancies"),
    *("windows", "learning_rows", "policies", "policy_blocks", "audit"),
)


BLOCK, POPULATION = "block", "population"
Source = tuple[str, int, int]
"""The place of a block: (BLOCK, policy, participant), or (POPULATION, policy, 0) for the block of a policy
that serves all participants without one of their own."""


class Study:
    """The tables of a study, or of some of its participants, by the keys with which checks look things up.

    `checked` are the decisions to replay; the others are only there to be looked back on. `recomputed`
    collects the stored blocks that are unusable or gone, as they were computed again; `fallen_from` those of
    them that a decision fell back from."""

    def __init__(
        self,
        tables: Mapping[str, list[Row]],
        facts: Mapping[str, Any],
        as_of: datetime,
        checked: list[Row] | None = None,
    ) -> None:
        self.tables = tables
        self.facts = facts
        self.as_of = as_of
        self.checked = tables["decisions"] if checked is None else checked
        self.protocols: dict[int, Protocol | None] = {}
        for row in tables["protocols"]:
            try:
                self.protocols[row["id"]] = stored(row["document"], row["hash"])
            except ProtocolError:
                self.protocols[row["id"]] = None  # `integrity` reports it
        self.effective = {row["id"]: row["effective_at"] for row in tables["protocols"]}
        self.participants = {row["id"]: row for row in tables["participants"]}
        self.decisions = {row["id"]: row for row in tables["decisions"]}
        self.decisions_of = _grouped(tables["decisions"], "participant_id", "decision_index")
        self.points = {(row["participant_id"], row["decision_index"]): row for row in tables["decisions"]}
        self.windows = {(row["participant_id"], row["decision_index"]): row for row in tables["windows"]}
        self.answers = _grouped(tables["answers"], "decision_id", "version")
        self.discrepancies = _grouped(tables["discrepancies"], "decision_id", "id")
        self.removed = {
            row["id"]: row["removed_row_seq"]
            for row in tables["participants"]
            if row.get("removed_row_seq") is not None
        }
        self.zones = _grouped(tables["participant_zones"], "participant_id", "decision_index")
        self.policies = {row["policy_id"]: row for row in tables["policies"]}
        self.blocks = {(row["policy_id"], row["participant_id"]): row for row in tables["policy_blocks"]}
        self.recomputed: dict[Source, Block] = {}
        self.fallen_from: set[Source] = set()

    def protocol(self, row: Row) -> Protocol | None:
        """Return the protocol of a decision or policy; None where the export has none, which is a
        divergence."""
        return self.protocols.get(row["protocol_id"])

    def in_force(self) -> Protocol | None:
        """Return the protocol in force as of the export."""
        versions = {row["version"]: row["id"] for row in self.tables["protocols"]}
        return self.protocols.get(versions.get(self.facts["protocol_version"], 0))

    def below(self, policy_id: int, feature_version: str) -> int | None:
        """Return the highest policy number below `policy_id` of this version of the features."""
        lower = (number for number in self.policies if number < policy_id)
        return max((number for number in lower if self.has_features(number, feature_version)), default=None)

    def has_features(self, policy_id: int, feature_version: str) -> bool:
        """Return True if a policy is of this version of the features: no other policy may serve them."""
        return bool(self.policies[policy_id]["feature_version"] == feature_version)

    def own_block(self, policy_id: int, participant_id: int) -> Block | None:
        """Return a participant's stored block under a policy; None where it is gone or its numbers make
        none."""
        stored = self.blocks.get((policy_id, participant_id))
        return None if stored is None else unpacked(stored)

    def zone(self, participant_id: int, decision_index: int) -> str | None:
        """Return the time zone that a participant lived in at a decision point."""
        rows = self.zones.get(participant_id, [])
        zones = [row["timezone"] for row in rows if row["decision_index"] <= decision_index]
        return zones[-1] if zones else None


def _grouped(rows: list[Row], key: str, order: str) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: int(row[order])):
        groups[row[key]].append(row)
    return dict(groups)


def population(policy: Row) -> Block:
    """Return a policy's block for participants who were not in its fit, with whatever shape it has."""
    mean, covariance = floats(policy["advantage_mean"]), floats(policy["advantage_covariance"])
    square = covariance.size == mean.size**2
    # a damaged block keeps its wrong shape: the ladder refuses it, as it did when it served
    return Block(mean, covariance.reshape(mean.size, mean.size) if square else covariance)


def unpacked(block: Row) -> Block | None:
    """Return a participant's stored block; None where the numbers make none."""
    mean, packed = floats(block["mean"]), floats(block["covariance"])
    rows, columns = np.triu_indices(mean.size)  # only the upper triangle is stored
    if packed.shape != rows.shape:
        return None
    matrix = np.zeros((mean.size, mean.size))
    matrix[rows, columns] = matrix[columns, rows] = packed
    return Block(mean, matrix)


def floats(values: list[float | None]) -> Floats:
    """Return numbers as an array, with NaN for None."""
    return np.array(values, dtype=np.float64)

"""The words in which a table declares, at its class, its place in exports and the meaning of each column.

Declarations are plain data, which models/research/exports.py reads, as models/core/grants.py reads the
`__rights__` of models/core/base.py: a new table changes none of these. A test asks every table for its own.
"""

from enum import Enum, auto
from typing import Any, NamedTuple

from sqlalchemy import Column


class Export(Enum):
    """The place of a table in the export of a study."""

    WITHHELD = auto()
    """No row leaves the service."""
    ROWS = auto()
    """The rows of the study are exported, as a table of their own."""
    LONG_TABLE = auto()
    """The same, and the long table `trial` is made from them, some participants at a time."""


class Meaning(NamedTuple):
    """The meaning of a column's values, with their unit and range, for the data dictionary of an export.

    withheld: the column stays out of exports. secret: it stays out of every copy, and no reader may see it.
    """

    text: str
    unit: str = ""
    range: str = ""
    withheld: bool = False
    secret: bool = False


SHARED = {
    "id": Meaning("number of the row", range=">= 1"),
    "created_at": Meaning(
        "when the row was stored, by the database's clock (the transaction's begin)", "UTC"
    ),
    "study_id": Meaning("number of the study", range=">= 1", withheld=True),  # an export is of one study
    "participant_id": Meaning("opaque number of the participant", range=">= 1"),
    "decision_id": Meaning("rid: id of the decision", range=">= 1"),
    "decision_index": Meaning("number of the decision point, from 1", range=">= 1"),
    "protocol_id": Meaning("id in `protocols`", range=">= 1"),
    "protocol_hash": Meaning("SHA-256 of the canonical protocol document", "hexadecimal"),
    "code_version": Meaning("version and digest of the code that computed the row"),
    "feature_version": Meaning("changes when the meaning of a state variable or feature changes"),
    "policy_id": Meaning("number of the policy in its study; 0 is the prior", range=">= 0"),
    "timezone": Meaning("IANA time zone"),
    "reason": Meaning("why, in words"),
}
"""Meanings of the names that mean the same in every table, where a column declares none of its own."""


def means(
    text: str, unit: str = "", range: str = "", *, withheld: bool = False, secret: bool = False
) -> dict[Any, Any]:
    """Return a Meaning in the shape of `mapped_column(info=...)`, to be declared with its column."""
    return {"meaning": Meaning(text, unit, range, withheld, secret)}


def meaning(column: Column[Any]) -> Meaning:
    """Return the meaning that the column declares, or that of its name in SHARED. Raises LookupError."""
    declared: Meaning | None = column.info.get("meaning", SHARED.get(column.name))
    if declared is None:  # nobody has said whether its values may leave the service
        raise LookupError(f"the column {column.table.name}.{column.name} declares no meaning")
    return declared

"""The manifest's statements about the study and its tables, checked against the audit and the dictionary."""

from typing import Any

from replay.findings import Report
from replay.fits import ACTIVATING
from replay.format.reading import Manifest
from replay.tables import Study

CHANGING = ("paused", "learning_frozen", "closed_at")
"""The columns of the study that acts of the audit change."""
IN_FORCE = {"protocol_version", "protocol_in_force"}
"""The acts of the audit that may bring a version of the protocol in force."""


def check(study: Study, facts: Manifest, report: Report) -> None:
    """Check that the study's row and the columns of the tables are as the audit and the dictionary have
    them."""
    acts = sorted(study.tables["audit"], key=lambda act: int(act["seq"]))
    expected: dict[str, Any] = {}
    creation = next((act for act in acts if act["act"] == "create_study"), None)
    if creation is not None:
        columns = creation["after"] or {}
        expected = {name: columns[name] for name in ("name", "timezone", "ema_timezone") if name in columns}
        expected["created_at"] = creation["created_at"].isoformat()
    expected |= {"paused": False, "learning_frozen": False, "closed_at": None, "protocol_version": 1}
    for act in acts:
        after = act["after"] or {}
        expected |= {name: after[name] for name in CHANGING if name in after}
        if act["act"] in IN_FORCE and after.get("in_force"):
            expected["protocol_version"] = after["version"]
    # the newest policy serves, unless another was activated since: the act names the one that served before
    newest = max(study.policies, default=None)
    activations = [act for act in acts if act["act"] in ACTIVATING]
    newest_then = max((act["before"]["policy_id"] for act in activations), default=-1)
    replaced = newest is not None and newest <= newest_then
    expected["policy_id"] = activations[-1]["after"]["policy_id"] if replaced else newest
    stored = facts.study.model_dump()
    stored_values = [stored[name] for name in expected]
    report.compare("reference", "the manifest's study", stored_values, [*expected.values()])
    dictionary_columns = [[row["table"], row["column"], row["kind"]] for row in study.tables["dictionary"]]
    manifest_columns = [[name, *column] for name, table in facts.tables.items() for column in table.columns]
    report.compare(
        "checksum", "columns of the tables, by the dictionary", manifest_columns, dictionary_columns
    )

"""What the manifest says of the study and of its tables, from the audit and from the dictionary."""

from typing import Any

from replay.findings import Report
from replay.fits import ACTIVATING
from replay.format.long_table import Row
from replay.format.reading import Manifest
from replay.tables import Study

CHANGING = ("paused", "learning_frozen", "closed_at")
IN_FORCE = {"protocol_version", "protocol_in_force"}  # acts of the audit


def check(study: Study, facts: Manifest, report: Report) -> None:
    """The study's row and the columns of the tables are as the audit and the dictionary have them."""
    acts = sorted(study.tables["audit"], key=lambda act: int(act["seq"]))
    stored, found = facts.study.model_dump(), _begun(acts) | _now(acts)
    found["policy_id"] = _serving(study, acts)
    report.compare("reference", "the manifest's study", [stored[name] for name in found], [*found.values()])
    told = [[row["table"], row["column"], row["kind"]] for row in study.tables["dictionary"]]
    columns = [[name, *column] for name, table in facts.tables.items() for column in table.columns]
    report.compare("checksum", "columns of the tables, by the dictionary", columns, told)


def _begun(acts: list[Row]) -> dict[str, Any]:
    """What the study was created with, as far as the audit's first row tells it."""
    first = next((act for act in acts if act["act"] == "create_study"), None)
    if first is None:
        return {}
    told = first["after"] or {}
    fixed = {name: told[name] for name in ("name", "timezone", "ema_timezone") if name in told}
    return fixed | {"created_at": first["created_at"].isoformat()}


def _now(acts: list[Row]) -> dict[str, Any]:
    """Paused, frozen, closed, and under which version of the protocol, after the last act."""
    found: dict[str, Any] = {"paused": False, "learning_frozen": False, "closed_at": None}
    found["protocol_version"] = 1
    for act in acts:
        after = act["after"] or {}
        found |= {name: after[name] for name in CHANGING if name in after}
        if act["act"] in IN_FORCE and after.get("in_force"):
            found["protocol_version"] = after["version"]
    return found


def _serving(study: Study, acts: list[Row]) -> int | None:
    """The newest policy, unless another was activated since: an act tells the one that served before it."""
    newest = max(study.policies, default=None)
    activated = [act for act in acts if act["act"] in ACTIVATING]
    known = max((act["before"]["policy_id"] for act in activated), default=-1)
    return newest if newest is None or newest > known else activated[-1]["after"]["policy_id"]

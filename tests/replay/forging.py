"""Altering an export in memory, as a careful forger would: every file fits the others and its checksum."""

import copy
import random
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from replay import checks
from replay.findings import Report
from replay.format import long_table, reading
from replay.format.long_table import Row
from replay.format.reading import Manifest
from replay.tables import Study
from tests.replay.conftest import Rehearsed

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
NEVER, SOMETIMES = "nothing is computed from", "found only where something was computed from that row"
ALL = "all columns"
EMPTY: tuple[Any, ...] = (None, [], {}, "")
BEFORE_THE_FAULTS = 12
"""Its decisions could be called F1 where the next policy's block was damaged: in a trial of some seconds
times do not tell that it did not serve yet."""
OPENED = {("decisions", "answers"), ("answers", "item"), ("policies", "report")}
"""Columns whose keys are altered one by one. Other documents are altered anywhere: their hash is one."""


def diverged(rehearsed: Rehearsed, tables: dict[str, list[Row]], told: Manifest | None = None) -> Report:
    """The replay of tables in memory, with a long table that a careful forger has made to fit them, and with
    another manifest where one is given."""
    facts = told or reading.manifest(rehearsed.folder)
    study = Study(tables, facts.study.model_dump(), checks.as_of(facts))
    report = Report()
    protocol = study.in_force()
    long = []
    if protocol is not None:
        raw = long_table.Raw(**{name: tables[name] for name in long_table.Raw.__dataclass_fields__})
        long = list(long_table.rows(raw, long_table.Context(protocol, study.as_of)))
    checks.whole(study, long, rehearsed.key, report, facts)
    report.conclude()
    return report


def altered(value: Any, chance: random.Random) -> Any:
    """Another value of the same kind, near the old one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + chance.choice([-1, 1])
    if isinstance(value, float):
        return value * (1 + 1e-5) if value else 1e-5
    if isinstance(value, list):
        at = chance.choice([at for at, inner in enumerate(value) if is_alterable(inner)])
        return [*value[:at], altered(value[at], chance), *value[at + 1 :]]
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    if isinstance(value, dict):
        key = chance.choice([key for key, inner in value.items() if is_alterable(inner)])
        return {**value, key: altered(value[key], chance)}
    return value + timedelta(days=2)


def is_alterable(value: Any) -> bool:
    """Whether there is something to alter: damages of the rehearsed trial are no numbers already."""
    if isinstance(value, dict):
        return any(map(is_alterable, value.values()))
    if isinstance(value, list):
        return any(map(is_alterable, value))
    return value not in EMPTY and value == value  # NaN is not


def alter(rows: list[Row], path: str, chance: random.Random) -> bool:
    """Alter one number under a column, or a key of a document; False where there is none."""
    *outer, last = path.split(".")
    places: list[Any] = [row for row in rows if row.get("policy_id") != 0 or path == "policy_id"]
    for key in outer:
        places = [place[key] for place in places if place.get(key)]
    if path == "fallback_level":
        places = [place for place in places if place["decision_index"] != BEFORE_THE_FAULTS]
    places = [place for place in places if is_alterable(place.get(last))]
    if not places:
        return False
    place = chance.choice(places)
    place[last] = [] if last == "cannabis_use" else altered(place[last], chance)
    return True


def listed(heading: str) -> dict[str, set[str]]:
    """The columns by table that the page names under a heading."""
    section = PAGE.split(f"| table | {heading} |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", section, re.MULTILINE)
    return {
        table: {ALL} if told.startswith(ALL) else set(re.findall("`([^`]+)`", told)) for table, told in rows
    }


def paths(tables: dict[str, list[Row]], table: str) -> list[str]:
    """Every column of a table, of some documents every key."""
    found: dict[str, None] = {}
    for row in tables[table]:
        for column, value in row.items():
            found |= dict.fromkeys(_keys(column, value) if (table, column) in OPENED else [column])
    return list(found)


def _keys(path: str, value: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        yield path
        return
    for key, inner in value.items():
        yield from _keys(f"{path}.{key}", inner)


def found_in(rehearsed: Rehearsed, tables: dict[str, list[Row]], table: str, path: str, chance: int) -> bool:
    """Whether one value that was altered under a path is found; so is one that cannot be altered."""
    forged = {**tables, table: copy.deepcopy(tables[table])}
    return not alter(forged[table], path, random.Random(chance)) or bool(diverged(rehearsed, forged).first)

"""A single altered number is found: in one file by the checksums, in one file with the checksums made anew
by the other format, and in every file at once by recomputation, for each column that the replay computes."""

import copy
import json
import random
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from models import exports
from replay import checks, folder, reports, trial, writing
from replay.folder import Manifest, Unreadable
from replay.kinds import Column
from replay.report import Report
from replay.study import Study
from replay.trial import Row
from tests.replay.conftest import Rehearsed

EVIDENCE = (
    "before",
    "after",
    "penalised_before",
    "penalised_after",
    "path",
    "evaluations",
    "participants",
    "rows",
)
TABLES = sorted(exports.tables())
PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
NEVER, SOMETIMES = "nothing is computed from", "found only where something was computed from that row"
ALL = "all columns"
TIMES = {"created_at", "decision_time"}  # in a trial of some seconds hardly one of them matters
EMPTY: tuple[Any, ...] = (None, [], {}, "")
OPENED = {("decisions", "answers"), ("answers", "item"), ("policies", "report")}
"""Columns whose keys are altered one by one. Other documents are altered anywhere: their hash is one."""


@pytest.fixture(scope="module")
def tables(rehearsed: Rehearsed) -> dict[str, list[Row]]:
    facts = folder.manifest(rehearsed.folder)
    return {name: folder.table(rehearsed.folder, name, facts, Report()) for name in facts.tables}


def diverged(rehearsed: Rehearsed, tables: dict[str, list[Row]]) -> Report:
    """The replay of tables in memory, with a long table that a careful forger has made to fit them."""
    facts = folder.manifest(rehearsed.folder)
    study = Study(tables, facts.study.model_dump(), checks._as_of(facts))
    report = Report()
    protocol = study.in_force()
    long = []
    if protocol is not None:
        raw = trial.Raw(**{name: tables[name] for name in trial.Raw.__dataclass_fields__})
        long = list(trial.rows(raw, trial.Context(protocol, study.as_of)))
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
        at = chance.randrange(len(value))
        return [*value[:at], altered(value[at], chance), *value[at + 1 :]]
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    if isinstance(value, dict):
        key = chance.choice([key for key, inner in value.items() if inner not in EMPTY])
        return {**value, key: altered(value[key], chance)}
    return value + timedelta(days=2)


def is_finite(value: Any) -> bool:
    """Whether a value can be altered: damages of the rehearsed trial are no numbers already."""
    return "nan" not in str(value)


def alter(rows: list[Row], path: str, chance: random.Random) -> bool:
    """Alter one number under a column, or a key of a document; False where there is none."""
    *outer, last = path.split(".")
    places: list[Any] = [row for row in rows if row.get("policy_id") != 0 or path == "policy_id"]
    for key in outer:
        places = [place[key] for place in places if place.get(key)]
    places = [place for place in places if place.get(last) not in EMPTY]
    finite = [place for place in places if is_finite(place[last])]
    if not finite:
        return False
    place = chance.choice(finite)
    place[last] = [] if last == "cannabis_use" else altered(place[last], chance)
    return True


def listed(heading: str) -> dict[str, set[str]]:
    """The columns by table that the page names under a heading."""
    section = PAGE.split(f"| table | {heading} |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
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


@pytest.mark.parametrize("table", TABLES)
def test_what_is_altered_everywhere_is_found_in_every_column_but_those_that_the_page_names(
    rehearsed: Rehearsed, tables: dict[str, list[Row]], table: str
) -> None:
    never, sometimes = (listed(heading).get(table, set()) for heading in (NEVER, SOMETIMES))
    if never == {ALL}:
        return
    known = paths(tables, table)
    assert never | sometimes <= set(known)
    always = [path for path in known if path not in never | sometimes]
    missed = [path for path in always for one in (1, 2) if not found_in(rehearsed, tables, table, path, one)]
    assert missed == []
    hidden = [
        path
        for path in sometimes - TIMES
        if not any(found_in(rehearsed, tables, table, path, one) for one in range(40))
    ]
    assert hidden == []


def test_nobody_finds_what_the_page_names_without_the_manifests_checksum(
    rehearsed: Rehearsed, tables: dict[str, list[Row]]
) -> None:
    """So that the page does not name what is found."""
    forged = copy.deepcopy(tables)
    for table, columns in listed(NEVER).items():
        for path in paths(tables, table) if columns == {ALL} else columns - {"timezone"}:
            alter(forged[table], path, random.Random(3))
    assert diverged(rehearsed, forged).first == {}


@pytest.mark.parametrize("name", EVIDENCE)
def test_a_number_altered_in_the_report_of_a_fit_is_found(
    rehearsed: Rehearsed, tables: dict[str, list[Row]], name: str
) -> None:
    forged = {**tables, "policies": copy.deepcopy(tables["policies"])}
    assert alter(forged["policies"], f"report.hyperparameters.evidence.{name}", random.Random(1))
    assert "fit report" in diverged(rehearsed, forged).first


@pytest.mark.parametrize(
    "table", ["decisions", "answers", "windows", "learning_rows", "policies", "protocols"]
)
def test_a_value_taken_away_is_found_and_never_a_crash(
    rehearsed: Rehearsed, tables: dict[str, list[Row]], table: str
) -> None:
    free = listed(NEVER).get(table, set()) | listed(SOMETIMES).get(table, set())
    columns = [name for name in paths(tables, table) if "." not in name and name not in free]
    for column in random.Random(5).sample(columns, min(4, len(columns))):
        rows = copy.deepcopy(tables[table])
        place = next((row for row in rows if row[column] is not None), {})
        if not place:
            continue
        place[column] = None
        try:
            assert diverged(rehearsed, {**tables, table: rows}).first, column
        except checks.DAMAGE:
            continue  # what `replay` calls unreadable


def test_a_row_taken_away_is_found(rehearsed: Rehearsed, tables: dict[str, list[Row]]) -> None:
    for table in (
        "decisions",
        "answers",
        "windows",
        "learning_rows",
        "policies",
        "policy_blocks",
        "protocols",
    ):
        rows = [row for row in tables[table] if table != "answers" or row["reward"] is not None]
        forged = {**tables, table: [row for row in tables[table] if row is not rows[len(rows) // 2]]}
        assert diverged(rehearsed, forged).first or table == "answers", table


def test_a_number_altered_in_the_long_table_is_found(
    rehearsed: Rehearsed, tables: dict[str, list[Row]]
) -> None:
    facts = folder.manifest(rehearsed.folder)
    study = Study(tables, facts.study.model_dump(), checks._as_of(facts))
    for column, kind in facts.tables["trial"].columns:
        if kind == "text":
            continue
        long = copy.deepcopy(tables["trial"])
        if not alter(long, column, random.Random(1)):
            continue
        report = Report()
        reports.long_table(study, long, report)
        assert set(report.first) == {"trial table"}, column


def cells(facts: Manifest) -> Iterator[tuple[str, Column]]:
    for table, told in facts.tables.items():
        yield from ((table, Column(*column)) for column in told.columns if told.rows)


def test_a_cell_altered_in_one_file_is_found_even_with_new_checksums(
    rehearsed: Rehearsed, tmp_path: Path
) -> None:
    facts = folder.manifest(rehearsed.folder)
    chance = random.Random(3)
    found = 0
    for table, column in cells(facts):
        if column.kind in {"text", "json"}:
            continue
        for suffix in ("csv", "parquet"):
            shutil.copy(rehearsed.folder / f"{table}.{suffix}", tmp_path)
        rows = folder.table(tmp_path, table, facts, Report())
        usable = [row for row in rows if row[column.name] not in (None, []) and is_finite(row[column.name])]
        if not usable:
            continue
        row = chance.choice(usable)
        row[column.name] = altered(row[column.name], chance)
        names = [name for name, _ in facts.tables[table].columns]
        other = tmp_path / "other"
        other.mkdir()
        with writing.TableWriter(
            other, table, [Column(*told) for told in facts.tables[table].columns]
        ) as file:
            file.write([[row[name] for name in names] for row in rows])
        suffix = chance.choice(["csv", "parquet"])
        shutil.move(other / f"{table}.{suffix}", tmp_path / f"{table}.{suffix}")
        shutil.rmtree(other)
        report = Report()
        folder.table(tmp_path, table, facts, report)
        assert "parquet" in report.first, (table, column.name, suffix)
        found += 1
    assert found > 60


def forged(rehearsed: Rehearsed, target: Path) -> Path:
    """A copy of the export in which one digit of one CSV file is another."""
    shutil.copytree(rehearsed.folder, target)
    text = (target / "policies.csv").read_text(encoding="utf-8")
    at = text.rindex("0.")
    digit = "1" if text[at + 2] != "1" else "2"
    (target / "policies.csv").write_text(text[: at + 2] + digit + text[at + 3 :], encoding="utf-8")
    return target


def test_an_altered_file_has_another_checksum(rehearsed: Rehearsed, tmp_path: Path) -> None:
    report = checks.replay(forged(rehearsed, tmp_path / "export"), rehearsed.key)
    assert report.first["checksum"].where == "policies.csv"


def test_new_checksums_make_another_manifest_than_the_one_that_was_told(
    rehearsed: Rehearsed, tmp_path: Path
) -> None:
    target = forged(rehearsed, tmp_path / "export")
    told = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    writing.seal(target, {name: value for name, value in told.items() if name != "files"})
    assert "checksum" not in checks.replay(target, rehearsed.key).first
    report = checks.replay(target, rehearsed.key, rehearsed.manifest_sha256)
    assert report.first["checksum"].where == "manifest.json"


@pytest.mark.parametrize("name", ["policies.csv", "trial.parquet", "manifest.json"])
def test_a_broken_file_is_unreadable(rehearsed: Rehearsed, tmp_path: Path, name: str) -> None:
    target = tmp_path / "export"
    shutil.copytree(rehearsed.folder, target)
    whole = (target / name).read_bytes()
    (target / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Unreadable):
        checks.replay(target, rehearsed.key)

"""A single number that is altered in every file at once, with new checksums, is found by recomputation, for
each column but those that docs/export.md names."""

import copy
import random

import pytest

from models.research import exports
from replay import checks, reported
from replay.findings import Report
from replay.format import reading
from replay.format.long_table import Row
from replay.tables import Study
from tests.replay.conftest import Rehearsed
from tests.replay.forging import ALL, NEVER, SOMETIMES, alter, diverged, found_in, listed, paths

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
TABLES = sorted([*exports.tables(), "dictionary"])
TIMES = {"created_at", "decision_time"}  # in a trial of some seconds hardly one of them matters


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
    named = listed(NEVER)
    del named["manifest.json"]  # tests/replay/test_manifest.py alters it
    for table, columns in named.items():
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
    facts = reading.manifest(rehearsed.folder)
    study = Study(tables, facts.study.model_dump(), checks.as_of(facts))
    for column, kind in facts.tables["trial"].columns:
        if kind == "text":
            continue
        long = copy.deepcopy(tables["trial"])
        if not alter(long, column, random.Random(1)):
            continue
        report = Report()
        reported.long_table(study, long, report)
        assert set(report.first) == {"trial table"}, column

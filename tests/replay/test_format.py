"""The format of an export: values survive both files exactly, and docs/export.md tells every column."""

import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithm.trial.protocol import default_document
from replay.findings import Report
from replay.format import long_table, reading
from replay.format.columns import KINDS, Column, decode, encode
from replay.format.writing import DICTIONARY, TableWriter, seal
from tests.replay.conftest import Rehearsed

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
NUMBERS = [0.1 + 0.2, 1e-320, -0.0, 1.7976931348623157e308, 5e-324, math.nan, math.inf, -math.inf, None]
VALUES: dict[str, list[Any]] = {
    "number": NUMBERS,
    "integer": [0, -1, 2**53 - 1, 2**63 - 1, None],
    "boolean": [True, False, None],
    "text": ["a", 'quoted "," text', "two\nlines", "ünïcode", " ", None],
    "instant": [datetime(2026, 11, 21, 12, 0, 0, 123456, UTC), datetime(1970, 1, 1, tzinfo=UTC), None],
    "date": [date(2026, 2, 28), None],
    "json": [{"a": [1, 2.5, None, {"b": "ü,\n"}]}, [], {}, None],
    "numbers": [[0.1, None, math.nan], [], None],
    "integers": [[1, 2**40], [], None],
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_survive_both_files_exactly(tmp_path: Path, kind: str) -> None:
    columns = [Column("number", "integer"), Column("value", kind)]
    with TableWriter(tmp_path, "table", columns) as file:
        file.write(list(enumerate(VALUES[kind])))
    facts = {
        "tables": {"table": {"rows": len(VALUES[kind]), "columns": [["number", "integer"], ["value", kind]]}}
    }
    study: dict[str, Any] = dict.fromkeys(("name", "timezone", "ema_timezone"), "x") | dict.fromkeys(
        ("protocol_version", "policy_id", "row_seq"), 0
    )
    study |= {"created_at": "x", "paused": False, "learning_frozen": False, "closed_at": None}
    told = {"format": "kairos-export-1", "study": study, "as_of": "x", "code_version": "x"}
    seal(tmp_path, told | facts | {"protocol_hashes": {}, "study_key_sha256": "x", "study_key": None})
    report = Report()
    rows = reading.table(tmp_path, "table", reading.manifest(tmp_path), report)
    assert [repr(row["value"]) for row in rows] == [repr(value) for value in VALUES[kind]]
    assert not report.first


@settings(max_examples=200)
@given(st.floats())
def test_every_float_is_read_as_it_was_written(value: float) -> None:
    assert repr(decode("number", encode("number", value))) == repr(value)


@pytest.mark.parametrize("name", ["miwaves", "oralytics"])
def test_the_page_tells_every_column_of_the_long_table(name: str) -> None:
    for column in long_table.columns(default_document(name)):
        known = "state_<name>" if column.name.startswith("state_") else column.name
        assert f"`{known}`" in PAGE or known == "message_notification_click_time", column.name
        assert column.meaning


def test_the_page_tells_every_reason_kind_and_table(rehearsed: Rehearsed) -> None:
    facts = reading.manifest(rehearsed.folder)
    for told in (*long_table.MISSING, *facts.tables):
        assert f"`{told}`" in PAGE or f"| {told} " in PAGE, told
    assert [name for name in KINDS if name not in PAGE] == []


def test_the_dictionary_has_every_column_of_every_table(rehearsed: Rehearsed) -> None:
    facts = reading.manifest(rehearsed.folder)
    rows = reading.table(rehearsed.folder, "dictionary", facts, Report())
    told = [(row["table"], row["column"], row["kind"]) for row in rows]
    assert told == [(name, *column) for name, table in facts.tables.items() for column in table.columns]
    assert [row for row in rows if not row["meaning"]] == []
    assert [column.name for column in DICTIONARY] == [name for name, _ in facts.tables["dictionary"].columns]

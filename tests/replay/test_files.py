"""An altered file is found: by its checksum, with new ones by the other format or by the manifest's own."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from replay import checks
from replay.findings import Report
from replay.format import reading, writing
from replay.format.columns import Column
from replay.format.long_table import Row
from replay.format.reading import Manifest, Unreadable
from tests.replay.conftest import Rehearsed
from tests.replay.forging import altered, is_alterable


def cells(facts: Manifest) -> Iterator[tuple[str, Column]]:
    for table, told in facts.tables.items():
        yield from ((table, Column(*column)) for column in told.columns if told.rows)


def test_a_cell_altered_in_one_file_is_found_even_with_new_checksums(
    rehearsed: Rehearsed, tmp_path: Path
) -> None:
    facts = reading.manifest(rehearsed.folder)
    chance = random.Random(3)
    found = 0
    for table, column in cells(facts):
        for suffix in ("csv", "parquet"):
            shutil.copy(rehearsed.folder / f"{table}.{suffix}", tmp_path)
        rows = reading.table(tmp_path, table, facts, Report())
        usable = [row for row in rows if is_alterable(row[column.name])]
        if not usable:
            continue
        row = chance.choice(usable)
        row[column.name] = altered(row[column.name], chance)
        other = tmp_path / "other"
        other.mkdir()
        written(other, table, facts, rows)
        suffix = chance.choice(["csv", "parquet"])
        shutil.move(other / f"{table}.{suffix}", tmp_path / f"{table}.{suffix}")
        shutil.rmtree(other)
        report = Report()
        reading.table(tmp_path, table, facts, report)
        assert "parquet" in report.first, (table, column.name, suffix)
        found += 1
    assert found > 150


def written(target: Path, table: str, facts: Manifest, rows: list[Row]) -> None:
    """Write both files of a table."""
    columns = [Column(*told) for told in facts.tables[table].columns]
    with writing.TableWriter(target, table, columns) as file:
        file.write([[row[column.name] for column in columns] for row in rows])


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


@pytest.mark.parametrize("table", ["incidents", "jobs", "proposals"])
def test_what_nothing_is_computed_from_is_safe_under_the_checksum_in_the_audit(
    rehearsed: Rehearsed, tmp_path: Path, table: str
) -> None:
    target = tmp_path / "export"
    shutil.copytree(rehearsed.folder, target)
    facts = reading.manifest(target)
    rows = reading.table(target, table, facts, Report())
    column = next(name for name, kind in facts.tables[table].columns if kind == "instant")
    rows[0][column] = altered(rows[0][column], random.Random(1))
    written(target, table, facts, rows)
    told = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    writing.seal(target, {name: value for name, value in told.items() if name != "files"})
    assert checks.replay(target, rehearsed.key).first == {}
    (act,) = rehearsed.study.rows("SELECT after FROM audit WHERE act = 'export written'")
    report = checks.replay(target, rehearsed.key, act["after"]["manifest_sha256"])
    assert {kind: one.where for kind, one in report.first.items()} == {"checksum": "manifest.json"}


@pytest.mark.parametrize("name", ["policies.csv", "trial.parquet", "manifest.json"])
def test_a_broken_file_is_unreadable(rehearsed: Rehearsed, tmp_path: Path, name: str) -> None:
    target = tmp_path / "export"
    shutil.copytree(rehearsed.folder, target)
    whole = (target / name).read_bytes()
    (target / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Unreadable):
        checks.replay(target, rehearsed.key)

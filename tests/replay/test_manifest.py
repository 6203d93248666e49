"""What the manifest says, altered one by one, is found, but for what docs/export.md names."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from replay import checks, manifest
from replay.findings import Report
from replay.format import reading
from replay.format.columns import KINDS
from replay.format.long_table import Row
from replay.format.reading import Manifest, Unreadable
from replay.tables import Study
from tests.replay.conftest import Rehearsed
from tests.replay.forging import NEVER, SOMETIMES, altered, diverged, listed

SECTIONS = {"tables", "files"}
NAMED = listed(NEVER)["manifest.json"] | listed(SOMETIMES)["manifest.json"]
OTHER_KEY = "ab" * 32


def told(folder_: Path) -> dict[str, Any]:
    return dict(json.loads((folder_ / "manifest.json").read_text(encoding="utf-8")))


def leaves(section: dict[str, Any], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key, by its path."""
    found = []
    for name, inner in section.items():
        path = (*before, name)
        found += leaves(inner, path) if isinstance(inner, dict) else [path]
    return found


def with_another(facts: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """A manifest with another value in one place."""
    forged = json.loads(json.dumps(facts))
    place = forged
    for name in path[:-1]:
        place = place[name]
    new = altered(place[path[-1]], random.Random(1)) if place[path[-1]] is not None else None
    missing = {"study_key": OTHER_KEY, "closed_at": facts["as_of"]}
    place[path[-1]] = missing[path[-1]] if new is None else new
    return dict(forged)


def test_another_value_anywhere_is_found(rehearsed: Rehearsed, tables: dict[str, list[Row]]) -> None:
    facts = told(rehearsed.folder)
    missed = []
    for path in leaves({name: value for name, value in facts.items() if name not in SECTIONS}):
        if path[0] == "format":
            continue
        forged = Manifest.model_validate(with_another(facts, path))
        if not diverged(rehearsed, tables, forged).first:
            missed.append(".".join(path))
    assert set(missed) <= NAMED
    assert len(leaves(facts)) > 100


def test_every_number_of_a_file_or_table_is_checked(rehearsed: Rehearsed) -> None:
    facts = told(rehearsed.folder)
    for name in ("bytes", "sha256"):
        forged = facts
        for file in facts["files"]:
            forged = with_another(forged, ("files", file, name))
        report = Report()
        reading.check_files(rehearsed.folder, Manifest.model_validate(forged), report)
        assert report.diverged["checksum"] == len(facts["files"])
    for table in facts["tables"]:
        forged = with_another(facts, ("tables", table, "rows"))
        report = Report()
        reading.table(rehearsed.folder, table, Manifest.model_validate(forged), report)
        assert report.first["checksum"].where == f"{table}, rows"


def test_the_kind_of_every_column_is_checked(rehearsed: Rehearsed, tables: dict[str, list[Row]]) -> None:
    facts = told(rehearsed.folder)
    honest = reading.manifest(rehearsed.folder)
    study = Study(tables, honest.study.model_dump(), checks.as_of(honest))
    for table, section in facts["tables"].items():
        for number, (_, kind) in enumerate(section["columns"]):
            forged = json.loads(json.dumps(facts))
            forged["tables"][table]["columns"][number][1] = next(one for one in KINDS if one != kind)
            report = Report()
            manifest.check(study, Manifest.model_validate(forged), report)
            assert set(report.first) == {"checksum"}


@pytest.mark.parametrize(
    "path", [("format",), ("tables", "jobs", "columns"), ("tables", "incidents", "columns")]
)
def test_what_cannot_be_read_is_told(rehearsed: Rehearsed, tmp_path: Path, path: tuple[str, ...]) -> None:
    facts = told(rehearsed.folder)
    if path[-1] == "columns":
        facts["tables"][path[1]]["columns"][0][0] += "_"
    else:
        facts = with_another(facts, path)
    (tmp_path / "manifest.json").write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(Unreadable):
        read(tmp_path, rehearsed.folder, path[1:2])


def read(manifest_folder: Path, tables_folder: Path, names: tuple[str, ...]) -> None:
    """Read tables as the manifest of another folder tells them."""
    facts = reading.manifest(manifest_folder)
    for name in names:
        reading.table(tables_folder, name, facts, Report())


def test_a_revealed_key_is_compared_with_the_one_that_is_given(
    rehearsed: Rehearsed, tables: dict[str, list[Row]]
) -> None:
    facts = reading.manifest(rehearsed.folder).model_copy(update={"study_key": rehearsed.key.hex()})
    assert diverged(rehearsed, tables, facts).first == {}
    facts = facts.model_copy(update={"study_key": OTHER_KEY})
    assert "seed" in diverged(rehearsed, tables, facts).first

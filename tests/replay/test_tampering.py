"""A single altered number is found: in one file by the checksums, in one file with the checksums made anew
by the other format, and in every file at once by recomputation, for each column that the replay computes."""

import copy
import json
import random
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replay import checks, folder, reports, trial, writing
from replay.folder import Manifest, Unreadable
from replay.kinds import Column
from replay.report import Report
from replay.study import Study
from replay.trial import Row
from tests.replay.conftest import Rehearsed

DERIVED = {
    "decisions": (
        *("participant_id", "decision_index", "protocol_id", "policy_id", "state", "advantage_mean"),
        *("advantage_variance", "act_prob", "seed", "action", "reward", "utc_offset_minutes"),
        *("act_gen_timestamp", "evening", "available", "answers.app_use_flag", "id"),
    ),
    "answers": (
        *("decision_id", "version", "reward", "item.seed", "item.act_prob", "item.rid", "item.action_taken"),
        *("item.decision_index", "item.policy_id"),
    ),
    "discrepancies": ("decision_id", "code"),
    "windows": ("participant_id", "decision_index", "query_start", "query_end", "ended_at"),
    "learning_rows": ("row_seq", "participant_id", "decision_id", "decision_index", "outcome"),
    "policies": (
        *("policy_id", "protocol_id", "row_seq", "row_count", "participants", "mean", "covariance"),
        *("sigma_u", "noise_variance", "advantage_mean", "advantage_covariance", "report.log_evidence"),
        "report.largest_change",
    ),
    "policy_blocks": ("policy_id", "participant_id", "mean", "covariance"),
    "protocols": (
        "version",
        "history",
        "document.prior.sigma_u",
        "document.allocation.B",
        "document.prior.sd",
    ),
    "participants": ("id", "decision_index"),
}
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
CASES = [(table, column) for table, columns in DERIVED.items() for column in columns]


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
    checks.whole(study, long, rehearsed.key, report)
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
    places = [place for place in places if place.get(last) not in (None, [])]
    finite = [place for place in places if is_finite(place[last])]
    if not finite:
        return False
    place = chance.choice(finite)
    place[last] = altered(place[last], chance)
    return True


@pytest.mark.parametrize("chance", [1, 2])
@pytest.mark.parametrize(("table", "column"), CASES, ids=str)
def test_a_number_altered_in_every_file_is_found(
    rehearsed: Rehearsed, tables: dict[str, list[Row]], table: str, column: str, chance: int
) -> None:
    forged = {**tables, table: copy.deepcopy(tables[table])}
    assert alter(forged[table], column, random.Random(chance))
    assert diverged(rehearsed, forged).first


@pytest.mark.parametrize("name", EVIDENCE)
def test_a_number_altered_in_the_report_of_a_fit_is_found(
    rehearsed: Rehearsed, tables: dict[str, list[Row]], name: str
) -> None:
    forged = {**tables, "policies": copy.deepcopy(tables["policies"])}
    assert alter(forged["policies"], f"report.hyperparameters.evidence.{name}", random.Random(1))
    assert "fit report" in diverged(rehearsed, forged).first


@pytest.mark.parametrize("table", sorted(DERIVED))
def test_a_value_taken_away_is_found_and_never_a_crash(
    rehearsed: Rehearsed, tables: dict[str, list[Row]], table: str
) -> None:
    columns = [name for name in DERIVED[table] if "." not in name]
    for column in random.Random(5).sample(columns, min(4, len(columns))):
        rows = copy.deepcopy(tables[table])
        place = next(row for row in rows if row[column] is not None)
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

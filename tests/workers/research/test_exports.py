"""The export as a job: written out of one snapshot, with progress, kept for a while, and replayed."""

import csv
import hashlib
import json
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

import models
from models.core import jobs, objects
from models.core.declarations import SHARED
from models.core.jobs import Job
from models.core.session import transact
from models.research import exports
from replay.checks import replay
from replay.format import writing
from replay.format.long_table import Raw
from settings import settings
from tests.support.study import Study
from tests.workers.trial.test_refit import play
from tests.workers.trial.test_refit import run as fit
from workers.core import sweep
from workers.research import exports as export


@pytest.fixture
def folder(only_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the store that exports go into."""
    monkeypatch.setenv("KAIROS_STORE", (tmp_path / "objects").as_uri())
    settings.cache_clear()
    return tmp_path / "objects"


def the_file(folder: Path) -> Path:
    """The only file of a store."""
    (file,) = (path for path in folder.rglob("*") if path.is_file())
    return file


def exported(study: Study) -> dict[str, Any]:
    """Ask for an export, write it here, and return how it fared."""
    job_id = study.call("POST", "/exports", role="researcher").get_json()["job_id"]
    export.run(job_id)
    return dict(study.call("GET", f"/exports/{job_id}", role="researcher").get_json()["export"])


def test_an_export_is_a_zip_that_replays(only_study: Study, folder: Path) -> None:
    play(only_study, people=3, points=5)
    fit(only_study)
    found = exported(only_study)
    # all of the 60 points of each were due, since the trial began in 2020
    assert (found["state"], found["rows"]["decisions"], found["rows"]["trial"]) == ("done", 15, 180)
    file = the_file(folder)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == found["sha256"]
    assert file.stat().st_size == found["bytes"]
    report = replay(file, anchor=found["manifest_sha256"])
    assert not report.first, "\n".join(report.lines())


def test_every_due_point_has_a_row_that_says_why_it_has_no_outcome(only_study: Study, folder: Path) -> None:
    play(only_study, people=1, points=2)
    exported(only_study)
    file = the_file(folder)
    with zipfile.ZipFile(file) as archive, archive.open("trial.csv") as raw:
        rows = list(csv.DictReader(line.decode() for line in raw))
    assert [row["decision_index"] for row in rows] == [str(index) for index in range(1, 61)]
    assert [row["outcome_missing"] for row in rows[:4]] == [
        "",
        "next_point_missed",
        "not_decided",
        "not_decided",
    ]
    assert [row["decided"] for row in rows[:3]] == ["true", "true", "false"]
    assert (rows[0]["outcome"], rows[0]["learning_row"], rows[1]["outcome"]) == ("0.0", "false", "")


def test_the_long_table_is_written_some_rows_at_a_time(
    only_study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(only_study, people=3, points=1)
    monkeypatch.setattr(writing, "ROWS", 7)
    written: list[int] = []
    write = writing.TableWriter.write

    def noted(table: writing.TableWriter, chunk: writing.Chunk) -> None:
        if Path(table.file.name).name == "trial.csv":
            written.append(len(chunk))
        write(table, chunk)

    monkeypatch.setattr(writing.TableWriter, "write", noted)
    assert exported(only_study)["rows"]["trial"] == 180
    assert (max(written), sum(written)) == (7, 180)


def test_no_name_and_no_secret_leaves_with_an_export(only_study: Study, folder: Path) -> None:
    only_study.enrol("zoe-whose-name-is-private")
    only_study.decide("zoe-whose-name-is-private")
    exported(only_study)
    file = the_file(folder)
    with zipfile.ZipFile(file) as archive:
        texts = [archive.read(name) for name in archive.namelist()]
        manifest = json.loads(archive.read("manifest.json"))
    assert not [text for text in texts if b"zoe-whose" in text]
    columns = {name for table in manifest["tables"].values() for name, _ in table["columns"]}
    assert not columns & {"user_id", "registration", "password_hash", "study_key", "ema_token"}
    assert manifest["study_key"] is None


def test_every_column_has_a_meaning_in_the_dictionary() -> None:
    columns = [
        (name, column.name, column.meaning)
        for name, table in exports.tables().items()
        for column in exports.described(table)
    ]
    assert len(columns) > 100
    assert [column[:2] for column in columns if not column[2]] == []
    names = {column.name for table in models.metadata.sorted_tables for column in table.columns}
    assert set(SHARED) - names == set()


def test_the_long_table_is_made_from_the_tables_that_say_so() -> None:
    assert set(exports.long_tables()) == set(Raw.__dataclass_fields__)


def test_the_size_of_the_chunks_changes_nothing(
    only_study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(only_study, people=3, points=4)
    written = []
    for chunk, people in ((2000, 100), (2, 1)):
        monkeypatch.setattr(exports, "CHUNK", chunk)
        monkeypatch.setattr(exports, "PEOPLE", people)
        exported(only_study)
        file = the_file(folder)
        with zipfile.ZipFile(file) as archive:
            written.append([archive.read(f"{name}.csv") for name in ("trial", "decisions", "learning_rows")])
        file.unlink()
    assert written[0] == written[1]


@pytest.mark.usefixtures("folder")
def test_progress_keeps_the_claim_and_a_lost_claim_ends_the_work(only_study: Study) -> None:
    job_id = only_study.call("POST", "/exports", role="admin").get_json()["job_id"]
    job = transact(lambda session: jobs.claim(session, job_id, exports.now(session)))
    assert job is not None
    export._progress(job, 12)("decisions", 500)
    shown = only_study.call("GET", f"/exports/{job_id}", role="admin").get_json()["export"]
    assert (shown["state"], shown["table"], shown["rows_written"], shown["tables"]) == (
        *("running", "decisions", 500, 12),
    )
    job.attempts += 1
    with pytest.raises(jobs.LostClaim):
        export._progress(job, 12)("decisions", 500)


def test_an_export_that_cannot_be_written_fails_and_says_of_what(only_study: Study, folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    found = exported(only_study)
    assert (found["state"], found["reason"]) == ("failed", "the service failed: FileExistsError")


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_old_exports_and_orphans_go_and_the_others_stay(
    only_study: Study,
    folder: Path,
    place: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if place == "s3":
        for name, value in request.getfixturevalue("swift").settings().items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()
    old, new = exported(only_study), exported(only_study)
    store = objects.store()
    orphan = objects.new_key(exports.AREA, 1)
    store.put(orphan, [b"written by a worker that died before it wrote the row"])
    ages = text("UPDATE jobs SET finished_at = finished_at - interval '8 days' WHERE id = :id")
    transact(lambda session: session.execute(ages, {"id": old["job_id"]}))
    export.expire()
    rows = transact(lambda session: list(session.scalars(select(Job).where(Job.kind == exports.EXPORT))))
    keys = {job.id: (job.result or {}).get("key") for job in rows}
    assert keys[old["job_id"]] is None
    assert {each.key for each in store.listed(exports.AREA)} == {keys[new["job_id"]], orphan}
    monkeypatch.setattr(objects, "ORPHAN_AGE", timedelta(seconds=-60))  # as if a day had passed
    export.expire()
    assert [each.key for each in store.listed(exports.AREA)] == [keys[new["job_id"]]]
    gone = only_study.call("GET", f"/exports/{old['job_id']}/file", role="researcher")
    assert (gone.status_code, gone.get_json()["error_code"]) == (410, 915)


def test_an_export_waits_for_a_store_that_is_away(only_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    away = {"KAIROS_STORE": "s3://bucket", "KAIROS_STORE_ENDPOINT": "http://127.0.0.1:9"}
    for name, value in (away | {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}).items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    found = exported(only_study)
    assert (found["state"], found["reason"]) == ("queued", "the service failed: StoreAway")


@pytest.mark.usefixtures("folder")
def test_a_lost_message_is_sent_again(only_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, int]] = []
    monkeypatch.setattr(sweep, "send", lambda kind, job_id: sent.append((kind, job_id)))
    monkeypatch.setattr(sweep, "waiting", lambda kind: False)
    job_id = only_study.call("POST", "/exports", role="admin").get_json()["job_id"]
    monkeypatch.setenv("KAIROS_SWEEP_SECONDS", "0.000001")
    settings.cache_clear()
    sweep.sweep()
    assert (exports.EXPORT, job_id) in sent

"""Exports over HTTP and at the command line: who may, what is noted, and downloads that break off."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.core import objects, studies
from models.core.objects import Store
from models.core.session import transact
from replay.checks import replay
from settings import settings
from tests.support.study import Study
from workers.research import exports
from workers.trial import refit

EACH = pytest.mark.parametrize("store", ["folder", "s3"], indirect=True)


@pytest.fixture(autouse=True)
def store(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Store]:
    """The store that exports go into: a folder, or what the test asks for."""
    if getattr(request, "param", "folder") == "s3":
        environment = request.getfixturevalue("swift").settings()
    else:
        environment = {"KAIROS_STORE": (tmp_path / "objects").as_uri()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    yield objects.store()
    settings.cache_clear()


def asked(study: Study) -> int:
    answer = study.call("POST", "/exports", role="researcher")
    assert answer.status_code == 202
    return int(answer.json["job_id"])  # type: ignore[index]


def acts(study: Study) -> list[tuple[str, str]]:
    found = study.rows(
        "SELECT act, reason FROM audit WHERE study_id = %s AND seq > 1 ORDER BY id", study.study_id
    )
    return [(row["act"], row["reason"]) for row in found]


def sealed(study: Study) -> str:
    """The manifest's checksum in the audit, which is part of its chain."""
    (row,) = study.call("GET", "/audit?act=export written", role="admin").get_json()["audit"]
    return str(row["after"]["manifest_sha256"])


@EACH
def test_request_and_download_are_noted(study: Study) -> None:
    job_id = asked(study)
    exports.run(job_id)
    whole = study.call("GET", f"/exports/{job_id}/file", role="researcher")
    shown = study.call("GET", f"/exports/{job_id}", role="admin").json["export"]  # type: ignore[index]
    assert (whole.status_code, whole.mimetype, len(whole.data)) == (200, "application/zip", shown["bytes"])
    assert whole.headers["ETag"] == f'"{shown["sha256"]}"'
    noted = ["export", "export written", "export download"]
    assert acts(study) == [(act, f"job {job_id}") for act in noted]
    assert sealed(study) == shown["manifest_sha256"]


@EACH
def test_a_download_that_broke_off_goes_on(study: Study) -> None:
    job_id = asked(study)
    exports.run(job_id)
    path = f"/exports/{job_id}/file"
    whole = study.call("GET", path, role="researcher")
    first = study.call("GET", path, role="researcher", Range="bytes=0-999")
    tag = {"Range": "bytes=1000-", "If_Range": whole.headers["ETag"]}
    rest = study.call("GET", path, role="researcher", **tag)
    assert (first.status_code, rest.status_code) == (206, 206)
    assert first.data + rest.data == whole.data
    other = study.call("GET", path, role="researcher", **(tag | {"If_Range": '"another"'}))
    assert (other.status_code, other.data) == (200, whole.data)
    beyond = study.call("GET", path, role="researcher", Range=f"bytes={len(whole.data)}-")
    assert (beyond.status_code, beyond.json["error_code"]) == (416, 913)  # type: ignore[index]


@EACH
def test_what_is_known_already_is_not_sent_again(study: Study) -> None:
    job_id = asked(study)
    exports.run(job_id)
    path = f"/exports/{job_id}/file"
    tag = study.call("GET", path, role="researcher").headers["ETag"]
    same = study.call("GET", path, role="researcher", If_None_Match=tag)
    assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", tag)
    head = study.call("HEAD", path, role="researcher")
    assert (head.status_code, head.data, head.headers["Accept-Ranges"]) == (200, b"", "bytes")


@EACH
def test_a_file_that_is_not_there_yet_or_no_more(study: Study, store: Store) -> None:
    job_id = asked(study)
    answer = study.call("GET", f"/exports/{job_id}/file", role="researcher")
    assert (answer.status_code, answer.json["error_code"]) == (409, 914)  # type: ignore[index]
    exports.run(job_id)
    for each in store.listed("exports"):
        store.delete(each.key)
    answer = study.call("GET", f"/exports/{job_id}/file", role="researcher")
    assert (answer.status_code, answer.json["error_code"]) == (410, 915)  # type: ignore[index]
    assert "export download" not in [act for act, _ in acts(study)]


def test_a_store_that_is_away_is_said_to_be(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = asked(study)
    exports.run(job_id)
    away = {"KAIROS_STORE": "s3://bucket", "KAIROS_STORE_ENDPOINT": "http://127.0.0.1:9"}
    for name, value in (away | {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}).items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    answer = study.call("GET", f"/exports/{job_id}/file", role="researcher")
    assert (answer.status_code, answer.json["error_code"]) == (503, 916)  # type: ignore[index]
    assert "Retry-After" in answer.headers


def test_other_jobs_are_no_exports(study: Study) -> None:
    job_id = study.call("POST", "/update_parameters", role="admin").json["job_id"]  # type: ignore[index]
    assert study.call("GET", f"/exports/{job_id}", role="researcher").status_code == 404


def command(study: Study, *words: str) -> Any:
    return study.service.app.test_cli_runner().invoke(args=["export", study.name, *words])


def test_the_command_writes_a_folder_that_replays(study: Study, tmp_path: Path) -> None:
    study.enrol("ann")
    study.live("ann", 2)
    done = command(study, str(tmp_path / "out"), "--account", f"admin@{study.name}")
    told = json.loads(done.output)
    assert told["rows"]["decisions"] == 2
    assert not replay(tmp_path / "out", anchor=told["manifest_sha256"]).first
    by_hand = "export at the command line"
    assert acts(study) == [(by_hand, "without the key"), ("export written", by_hand)]
    assert sealed(study) == told["manifest_sha256"]


def test_the_key_is_in_the_exports_of_a_closed_study(new_study: Callable[..., Study], tmp_path: Path) -> None:
    study = new_study("schedule.study_length=2")
    study.enrol("ann")
    study.live("ann", 2)
    words = ("--account", f"admin@{study.name}")
    study.call("POST", "/study/pause", {"reason": "the trial is over"}, role="admin")
    assert command(study, str(tmp_path / "early"), *words).exit_code == 0
    manifest = json.loads((tmp_path / "early" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["study_key"], manifest["study"]["closed_at"]) == (None, None)
    study.call("POST", "/study/close", {"reason": "the trial is over"}, role="admin")
    assert command(study, str(tmp_path / "out"), *words).exit_code == 0
    key = transact(lambda session: studies.by_id(session, study.study_id).study_key)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["study_key"] == key.hex()
    report = replay(tmp_path / "out")
    assert (report.first, report.held["seed"]) == ({}, 3)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--account", "nobody"), "there is no account 'nobody' of a researcher or admin"),
        (("--account", "client@{}"), "of a researcher or admin"),
        ((), "Missing option '--account'"),
    ],
)
def test_failures_are_sentences(study: Study, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = command(study, str(tmp_path / "out"), *(word.format(study.name) for word in words))
    assert told in done.output
    assert done.exit_code in {1, 2}


def test_a_folder_with_something_in_it_is_left_alone(study: Study, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    assert "is not empty" in command(study, str(tmp_path), "--account", f"admin@{study.name}").output
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mine"]


@pytest.mark.parametrize(
    "words",
    [("algorithm=pooled",), ("algorithm=fixed_probability",), ("hyperparameters.rule=fixed",)],
    ids=str,
)
def test_a_trial_under_another_algorithm_replays(
    new_study: Callable[..., Study], tmp_path: Path, words: tuple[str, ...]
) -> None:
    study = new_study(*words)
    for name in ("ann", "ben"):
        study.enrol(name)
        study.live(name, 4)
    for path in ("/update_hyperparameters", "/update_parameters"):
        refit.run(study.call("POST", path, role="admin").json["job_id"])  # type: ignore[index]
        study.live("ann", 2)
    told = json.loads(command(study, str(tmp_path / "out"), "--account", f"admin@{study.name}").output)
    report = replay(tmp_path / "out")
    assert not report.first, "\n".join(report.lines())
    assert told["rows"]["policies"] == (1 if "fixed_probability" in words[0] else 3)

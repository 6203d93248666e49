"""Protocols as files at the command line: round trips, and files that are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api.trial.test_protocols import WHY, in_force, listed
from tests.support.study import NOBODY, Study


def output(study: Study, *words: str) -> str:
    result = study.service.app.test_cli_runner().invoke(args=list(words))
    return f"{result.exit_code} {result.output}"


def test_a_study_is_replicated_from_the_file_of_another_one(
    new_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = new_study("schedule.study_length=33", "envelope.daily_cap=1", "prior.sigma_u=0.0123")
    code, _, text = output(study, "protocol", "export", study.name).partition(" ")
    file = tmp_path / "protocol.json"
    file.write_text(text)
    made = in_force(study)
    assert code == "0"
    assert study.service.command("protocol", "check", str(file))["protocol_hash"] == made["protocol_hash"]
    name = f"a replica of {study.name}"
    told = ("study", "create", name, "--ema-url", NOBODY, "--protocol-file", str(file))
    assert study.service.command(*told)["protocol_hash"] == made["protocol_hash"]
    assert output(study, "protocol", "export", name) == f"0 {text}"
    (row,) = study.rows(
        "SELECT p.document, p.looks_back_days FROM protocols p JOIN studies s ON s.id = p.study_id"
        " WHERE s.name = %s",
        name,
    )
    assert (row["document"], row["looks_back_days"]) == (made["document"], 8)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no JSON document"),
        ("[]", "document: must be an object"),
        ('{"protocol": "miwaves", "protocol": "miwaves"}', "a name stands twice"),
        ('{"protocol": "miwaves", "caps": 1}', "caps: unknown key"),
        ('{"protocol": "miwaves", "envelope": {"daily_cap": -1}}', "envelope.daily_cap"),
        ('{"protocol": "miwaves", "envelope": {"quiet_hours": {"from": 2200}}}', "envelope.quiet_hours.to"),
        ('{"protocol": "miwaves", "envelope": {"quiet_hours": {"from": 60, "to": 1}}}', "quiet_hours.from"),
        ('{"protocol": "miwaves", "envelope": {"quiet_hours": {"from": 1, "to": 1}}}', "quiet_hours.to"),
        ('{"protocol": "miwaves", "withdrawal": {"data": "sell"}}', "withdrawal.data"),
        ('{"protocol": "miwaves", "feature_version": "miwaves-0"}', "feature_version"),
        ('{"protocol": "miwaves", "fallback": {"unknown_state_probability": 0.4}}', "unknown_state"),
    ],
)
def test_a_wrong_file_is_named_by_its_key(study: Study, tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(text)
    for words in (("protocol", "check"), ("study", "create", "x", "--ema-url", NOBODY, "--protocol-file")):
        said = output(study, *words, str(file))
        assert said.startswith("1 ")
        assert told in said
        assert "Traceback" not in said
    assert "cannot read" in output(study, "protocol", "check", str(tmp_path / "none"))


def test_a_file_becomes_the_next_version_at_the_command_line(study: Study, tmp_path: Path) -> None:
    study.enrol("ann")
    study.live("ann", 1)
    file = tmp_path / "next.json"
    file.write_text(json.dumps({"protocol": "miwaves", "allocation": {"C": 4.0}}))
    words = ("protocol", "change", study.name, str(file), "--reason", WHY, "--account")
    admin = f"admin@{study.name}"
    assert "allocation.C" in output(study, *words, admin)
    assert "no account" in output(study, *words, f"researcher@{study.name}")
    told = study.service.command(*words, admin, "--amendment", "--effective-at", "2199-01-01T00:00:00+0000")
    assert (told["act"], told["state"]) == ("protocol_version", "approved")
    assert [(one["version"], one["in_force"]) for one in listed(study)] == [(1, True), (2, False)]


@pytest.mark.parametrize("time", ["2030-06-01T08:00:00+2000", "9999-12-31T23:59:59-1200"])
def test_a_time_that_the_database_cannot_give_back_is_refused_at_the_command_line(
    study: Study, tmp_path: Path, time: str
) -> None:
    file = tmp_path / "next.json"
    file.write_text(json.dumps({"protocol": "miwaves", "refit": {"nightly_hour": 5}}))
    words = ("protocol", "change", study.name, str(file), "--reason", WHY, "--account", f"admin@{study.name}")
    assert "must lie between" in output(study, *words, "--effective-at", time)
    assert len(listed(study)) == 1

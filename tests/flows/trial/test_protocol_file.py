"""Protocols as files: round trips, also to another deployment, and files that are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from algorithm.trial.amendments import changes, leaves
from algorithm.trial.protocol import default_document, digest, load
from local.embedded import Embedded
from tests.api.trial.test_protocols import WHY, in_force, listed
from tests.support.configured import configured, database
from tests.support.service import Service
from tests.support.study import NOBODY, Study

EVERYTHING = {
    "protocol": "miwaves",
    "algorithm": "fixed_probability",
    "algorithm_parameters": {"probability": 0.3},
    "prior": {"mean": [0.1] * 24, "sd": [0.7] * 24, "sigma_u": 0.03, "noise_variance": 0.9},
    "hyperparameters": {"rule": "fixed", "nu0": 29.0, "sigma_u0": 0.02, "nu_s": 6.0, "subsample": 500},
    "allocation": {"lower": 0.15, "upper": 0.85, "B": 3.3333333333333335, "C": 4.0},
    "gate": {"mean_bound": 7.1},
    "state": {"cannabis_use": "hours"},
    "schedule": {"study_length": 33, "points_per_day": 3, "window_hours": 5.5, "look_back_hours": 2.5},
    "refit": {"min_interval_minutes": 1.5, "nightly_only": True, "nightly_hour": 4, "weekly_day": 6},
    "withdrawal": {"data": "remove_from_learning"},
    "envelope": {
        "quiet_hours": {"from": 2230, "to": 615},
        "cool_down_hours": 1.5,
        "daily_cap": 2,
        "weekly_cap": 9,
    },
}
ONE_VALUE = {
    "protocol",
    "feature_version",
    "schedule.outcome_lag",
    "fallback.order",
    "fallback.unknown_state_probability",
} | {f"missing_data.{name}" for name in ("outcome", "earlier_reward", "state", "earlier_features")}
"""Keys that may say one thing only."""


def created(service: Service, file: Path) -> str:
    """The file that is exported from a study which is created from another one."""
    told = ("study", "create", "trial", "--ema-url", NOBODY, "--protocol-file", str(file))
    assert service.command(*told)["protocol_hash"] == digest(EVERYTHING)
    exported = service.app.test_cli_runner().invoke(args=["protocol", "export", "trial"])
    assert exported.exit_code == 0, exported.output
    return str(exported.output)


def test_every_key_is_set() -> None:
    usual, whole = default_document("miwaves"), load(EVERYTHING).document
    assert {key for key in leaves(usual) if key not in changes(usual, whole)} == ONE_VALUE


def test_a_file_replicates_a_study_on_another_deployment(
    embedded: Embedded, migrated: str, fresh_database: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(json.dumps(EVERYTHING))
    with configured(embedded, fresh_database) as service:
        second.write_text(created(service, first))
    assert json.loads(second.read_text()) == load(EVERYTHING).document
    with database(embedded, migrated) as elsewhere, configured(embedded, elsewhere) as service:
        assert created(service, second) == second.read_text()


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
    words = ("study", "create", name, "--ema-url", NOBODY, "--protocol-file", str(file))
    assert study.service.command(*words)["protocol_hash"] == made["protocol_hash"]
    assert output(study, "protocol", "export", name) == f"0 {text}"
    (row,) = study.rows(
        "SELECT p.document, p.looks_back_days FROM protocols p JOIN studies s ON s.id = p.study_id"
        " WHERE s.name = %s",
        name,
    )
    assert (row["document"], row["looks_back_days"]) == (made["document"], 8)


@pytest.mark.parametrize(
    ("text", "sentence"),
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
def test_a_wrong_file_is_named_by_its_key(study: Study, tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(text)
    for words in (("protocol", "check"), ("study", "create", "x", "--ema-url", NOBODY, "--protocol-file")):
        said = output(study, *words, str(file))
        assert said.startswith("1 ")
        assert sentence in said
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
    proposal = study.service.command(
        *words, admin, "--amendment", "--effective-at", "2199-01-01T00:00:00+0000"
    )
    assert (proposal["act"], proposal["state"]) == ("protocol_version", "approved")
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

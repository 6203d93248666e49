"""Protocols as files and in versions: round trips, refused changes, and what comes with a new version."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from algorithm.trial import designs
from algorithm.trial.designs.miwaves import MiWaves
from algorithm.trial.protocol import default_document
from tests.support.study import NOBODY, Trial
from workers.trial import protocols as versions
from workers.trial import refit

WHY = "the safety board asked for it"
FINISHED = {"finished_ema": True, "activity_question_response": True, "cannabis_use": []}


def put(trial: Trial, document: dict[str, Any], **more: Any) -> TestResponse:
    """PUT /study/protocol."""
    body = {"document": {"protocol": "miwaves", **document}, "reason": WHY, **more}
    return trial.call("PUT", "/study/protocol", body, role="admin")


def changed(trial: Trial, document: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The version that the same makes where it must succeed."""
    answer = put(trial, document, **more)
    assert (answer.status_code, answer.get_json()["state"]) == (202, "approved"), answer.text
    return dict(listed(trial)[-1])


def listed(trial: Trial) -> list[dict[str, Any]]:
    return list(trial.call("GET", "/study/protocol/versions", role="researcher").get_json()["protocols"])


def refits(trial: Trial) -> list[int]:
    """Jobs that wait to be run."""
    query = "SELECT id FROM jobs WHERE study_id = %s AND kind = 'refit' AND state = 'queued'"
    return [int(row["id"]) for row in trial.rows(query, trial.study_id)]


def refused(answer: TestResponse) -> tuple[int, int, list[str]]:
    body = answer.get_json()
    named = [one["field"] for one in body.get("errors", [])]
    return answer.status_code, body["error_code"], named


def in_force(trial: Trial) -> dict[str, Any]:
    return dict(trial.call("GET", "/study/protocol").get_json()["protocol"])


def output(trial: Trial, *words: str) -> str:
    result = trial.service.app.test_cli_runner().invoke(args=list(words))
    return f"{result.exit_code} {result.output}"


def test_a_study_is_replicated_from_the_file_of_another_one(
    new_trial: Callable[..., Trial], tmp_path: Path
) -> None:
    trial = new_trial("schedule.study_length=33", "envelope.daily_cap=1", "prior.sigma_u=0.0123")
    code, _, text = output(trial, "protocol", "export", trial.name).partition(" ")
    file = tmp_path / "protocol.json"
    file.write_text(text)
    made = in_force(trial)
    assert code == "0"
    assert trial.service.command("protocol", "check", str(file))["protocol_hash"] == made["protocol_hash"]
    name = f"a replica of {trial.name}"
    told = ("study", "create", name, "--ema-url", NOBODY, "--protocol-file", str(file))
    assert trial.service.command(*told)["protocol_hash"] == made["protocol_hash"]
    assert output(trial, "protocol", "export", name) == f"0 {text}"
    (row,) = trial.rows(
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
def test_a_wrong_file_is_named_by_its_key(trial: Trial, tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(text)
    for words in (("protocol", "check"), ("study", "create", "x", "--ema-url", NOBODY, "--protocol-file")):
        said = output(trial, *words, str(file))
        assert said.startswith("1 ")
        assert told in said
        assert "Traceback" not in said
    assert "cannot read" in output(trial, "protocol", "check", str(tmp_path / "none"))


def test_before_the_first_decision_everything_may_change(trial: Trial) -> None:
    trial.enrol("ann")
    seen = changed(trial, {"prior": {"sigma_u": 0.02}, "schedule": {"study_length": 5}})
    assert (seen["version"], seen["in_force"], seen["reason"]) == (2, True, WHY)
    assert in_force(trial)["protocol_hash"] == seen["protocol_hash"]
    assert trial.decide("ann")["policy_id"] == 1  # the prior of the new version
    assert [(one["version"], one["in_force"]) for one in listed(trial)] == [(1, False), (2, True)]
    (act,) = trial.rows(
        "SELECT reason, before, after FROM audit WHERE study_id = %s AND act = 'protocol_version'",
        trial.study_id,
    )
    assert (act["reason"], act["before"]["version"], act["after"]["version"]) == (WHY, 1, 2)
    assert act["after"]["hash"] == seen["protocol_hash"]


def test_the_protocol_of_a_closed_study_stays(trial: Trial) -> None:
    trial.call("POST", "/study/close", {"reason": WHY}, role="admin")
    assert refused(put(trial, {"schedule": {"study_length": 5}})) == (409, 932, [])


def test_once_decided_what_the_analysis_hangs_on_needs_an_amendment(trial: Trial) -> None:
    trial.enrol("ann")
    trial.live("ann", 3)
    change = {"allocation": {"C": 4.0}, "schedule": {"study_length": 2}, "refit": {"nightly_hour": 5}}
    assert refused(put(trial, change)) == (
        409,
        940,
        ["document.allocation.C", "document.schedule.study_length"],
    )
    assert in_force(trial)["version"] == 1
    assert changed(trial, {"refit": {"nightly_hour": 5}, "schedule": {"study_length": 3}})["version"] == 2
    assert changed(trial, change, amendment=True)["version"] == 3
    assert refits(trial) == []
    assert refused(put(trial, change)) == (409, 941, [])
    assert refused(put(trial, {"refit": {"nightly_hour": 99}})) == (422, 905, ["document.refit.nightly_hour"])


def test_the_probability_changes_with_the_version_and_decisions_say_which(trial: Trial) -> None:
    participant = trial.enrol("ann")
    first = trial.decide("ann")
    trial.end("ann")
    changed(trial, {"allocation": {"lower": 0.55, "upper": 0.6}}, amendment=True)
    second = trial.decide("ann")
    assert first["act_prob"] < 0.55 <= second["act_prob"] <= 0.6
    assert second["policy_id"] == first["policy_id"]  # what was learnt is of the same features and prior
    assert trial.decide("ann", decision_index=1)["act_prob"] == first["act_prob"]
    rows = trial.rows(
        "SELECT d.protocol_hash = p.hash AS same, p.version FROM decisions d JOIN protocols p"
        " ON p.id = d.protocol_id WHERE participant_id = %s ORDER BY decision_index",
        participant,
    )
    assert [(row["same"], row["version"]) for row in rows] == [(True, 1), (True, 2)]


def test_a_version_waits_for_its_time(trial: Trial) -> None:
    trial.enrol("ann")
    soon = datetime.now(UTC) + timedelta(hours=1)
    later = {"effective_at": soon.isoformat()}
    assert refused(put(trial, {"gate": {"mean_bound": 5.0}}, **later)) == (
        409,
        940,
        ["document.gate.mean_bound"],
    )
    made = changed(trial, {"envelope": {"daily_cap": 0}}, **later)
    assert (made["in_force"], in_force(trial)["version"]) == (False, 1)
    assert refused(put(trial, {"refit": {"nightly_hour": 5}})) == (409, 942, [])
    versions.enter_due()
    assert trial.decide("ann")["available"] is True
    trial.end("ann")
    assert in_force(trial)["version"] == 1
    statement = (
        "UPDATE protocols SET effective_at = now() - interval '1 s' WHERE study_id = %s AND version = 2"
    )
    assert trial.tamper(statement, trial.study_id) == 1
    for _ in range(2):
        versions.enter_due()
    assert in_force(trial)["version"] == 2
    assert trial.decide("ann")["unavailable_rule"] == "daily_cap"
    asked, entered = acts(trial, "protocol_version", "protocol_in_force")
    assert (asked["act"], asked["role"], asked["after"]["in_force"]) == ("protocol_version", "admin", False)
    assert (entered["act"], entered["role"], entered["client_id"]) == ("protocol_in_force", "service", None)
    assert (entered["before"]["version"], entered["after"]["version"]) == (1, 2)
    assert entered["before"]["hash"] == asked["before"]["hash"] != entered["after"]["hash"]


def acts(trial: Trial, *names: str) -> list[dict[str, Any]]:
    """What the audit tells of these acts."""
    statement = (
        "SELECT act, role, client_id, before, after FROM audit WHERE study_id = %s AND act = ANY(%s)"
        " ORDER BY seq"
    )
    return trial.rows(statement, trial.study_id, list(names))


def test_a_version_that_begins_anew_by_beat_tells_its_policy_and_its_refit(trial: Trial) -> None:
    later = {"effective_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    changed(trial, {"prior": {"sigma_u": 0.02}}, amendment=True, **later)
    trial.tamper(
        "UPDATE protocols SET effective_at = now() - interval '1 s' WHERE study_id = %s AND version = 2",
        trial.study_id,
    )
    versions.enter_due()
    (entered,) = acts(trial, "protocol_in_force")
    assert (entered["before"]["policy_id"], entered["after"]["policy_id"]) == (0, 1)
    assert [entered["after"]["refit_job_id"]] == refits(trial)


def test_a_version_in_force_at_once_leaves_one_row(trial: Trial) -> None:
    changed(trial, {"prior": {"sigma_u": 0.02}})
    (row,) = acts(trial, "protocol_version", "protocol_in_force")
    assert (row["before"]["policy_id"], row["after"]["policy_id"]) == (0, 1)
    assert (row["after"]["in_force"], [row["after"]["refit_job_id"]]) == (True, refits(trial))


def test_a_waiting_version_can_be_taken_back(trial: Trial) -> None:
    later = {"effective_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    changed(trial, {"envelope": {"daily_cap": 0}}, **later)
    assert changed(trial, {}, amendment=True, **later)["version"] == 3
    trial.tamper(
        "UPDATE protocols SET effective_at = now() - interval '1 s' WHERE study_id = %s AND version > 1",
        trial.study_id,
    )
    versions.enter_due()
    assert (in_force(trial)["version"], in_force(trial)["document"]) == (3, default_document("miwaves"))


def test_a_shorter_study_ends_who_is_beyond_its_end(trial: Trial) -> None:
    people = {name: trial.enrol(name) for name in ("past", "open", "before")}
    trial.live("past", 3)
    trial.live("open", 2)
    trial.decide("open")
    trial.live("before", 1)
    changed(trial, {"schedule": {"study_length": 3}})
    phases = {name: trial.show(number)["phase"] for name, number in people.items()}
    assert phases == {"past": "ENDED", "open": "COMPLETED_AWAITING_REVIEW", "before": "STARTED"}
    trial.end("open")
    assert trial.show(people["open"])["phase"] == "ENDED"
    assert trial.actions("past").status_code == 409


@dataclass
class Shifted(MiWaves):
    """The same variables, and another meaning of one of them."""

    name = "shifted"
    feature_version = "shifted-1"


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(designs.DESIGNS, "shifted", Shifted())
    return "shifted"


def learn(trial: Trial) -> dict[str, Any]:
    """A refit that is run here; its job."""
    job_id = trial.call("POST", "/update_parameters", role="admin").get_json()["job_id"]
    refit.run(job_id)
    return dict(trial.call("GET", f"/jobs/{job_id}").get_json()["job"])


def test_no_policy_of_other_features_serves_a_new_version(trial: Trial, shifted: str) -> None:
    for name in ("ann", "bob"):
        trial.enrol(name)
        trial.live(name, 4)
    assert learn(trial)["policy_id"] == 1
    changed(trial, {"protocol": shifted}, amendment=True)
    found = [trial.decide(name, **FINISHED) for name in ("ann", "bob")]
    assert {(one["policy_id"], one["fallback_level"]) for one in found} == {(2, "F0")}
    assert {tuple(one["state"]) for one in found} == {(1.0, 0.0, 1.0)}  # S1 of this reward alone
    (job_id,) = refits(trial)
    refit.run(job_id)
    assert trial.call("GET", "/study").get_json()["policy_id"] == 2  # no row under the new features yet
    for name in ("ann", "bob"):
        trial.end(name)
        trial.live(name, 3)
    assert learn(trial)["policy_id"] == 3
    (policy,) = trial.rows(
        "SELECT feature_version, row_count FROM policies WHERE study_id = %s AND policy_id = 3",
        trial.study_id,
    )
    assert (policy["feature_version"], policy["row_count"]) == ("shifted-1", 6)
    older = trial.call("POST", "/policies/1/activate", {"reason": WHY}, role="admin")
    assert refused(older) == (409, 935, [])
    assert trial.decide("ann")["policy_id"] == 3


@pytest.mark.parametrize("damage", ["UPDATE policies SET advantage_mean = '{}'", "DELETE FROM policies"])
def test_no_rung_of_the_ladder_leads_to_other_features(trial: Trial, shifted: str, damage: str) -> None:
    trial.enrol("ann")
    trial.live("ann", 4)
    assert learn(trial)["policy_id"] == 1
    changed(trial, {"protocol": shifted}, amendment=True)
    assert trial.tamper(f"{damage} WHERE study_id = %s AND policy_id = 2", trial.study_id) == 1
    assert trial.decide("ann")["fallback_level"] == "F3"
    trial.end("ann")
    trial.tamper("UPDATE studies SET policy_id = 1 WHERE id = %s", trial.study_id)  # as nobody should
    assert trial.decide("ann")["fallback_level"] == "F3"


def test_a_fit_that_a_new_version_overtakes_is_dropped(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    trial.enrol("ann")
    trial.live("ann", 4)
    fit = refit.fit

    def overtaken(*arguments: Any) -> Any:
        changed(trial, {"prior": {"noise_variance": 0.9}}, amendment=True)
        return fit(*arguments)

    monkeypatch.setattr(refit, "fit", overtaken)
    job = learn(trial)
    assert (job["state"], job["policy_id"]) == ("done", 1)
    (serving,) = trial.rows("SELECT policy_id FROM studies WHERE id = %s", trial.study_id)
    (prior,) = trial.rows(
        "SELECT noise_variance, row_count FROM policies WHERE study_id = %s AND policy_id = 1", trial.study_id
    )
    assert (serving["policy_id"], prior["noise_variance"], prior["row_count"]) == (1, 0.9, 0)
    monkeypatch.setattr(refit, "fit", fit)
    assert learn(trial)["policy_id"] == 2


def test_a_stored_document_that_lacks_later_keys_keeps_its_meaning_and_its_hash(trial: Trial) -> None:
    trial.enrol("ann")
    before = in_force(trial)
    old = {key: value for key, value in before["document"].items() if key not in {"envelope", "fallback"}}
    trial.tamper(
        "UPDATE protocols SET document = %s, hash = 'old' WHERE study_id = %s",
        json.dumps(old),
        trial.study_id,
    )
    trial.decide("ann")
    (row,) = trial.rows("SELECT protocol_hash FROM decisions WHERE study_id = %s", trial.study_id)
    assert row["protocol_hash"] == "old"


def test_a_file_becomes_the_next_version_at_the_command_line(trial: Trial, tmp_path: Path) -> None:
    trial.enrol("ann")
    trial.live("ann", 1)
    file = tmp_path / "next.json"
    file.write_text(json.dumps({"protocol": "miwaves", "allocation": {"C": 4.0}}))
    words = ("protocol", "change", trial.name, str(file), "--reason", WHY, "--account")
    admin = f"admin@{trial.name}"
    assert "allocation.C" in output(trial, *words, admin)
    assert "no account" in output(trial, *words, f"researcher@{trial.name}")
    told = trial.service.command(*words, admin, "--amendment", "--effective-at", "2199-01-01T00:00:00+0000")
    assert (told["act"], told["state"]) == ("protocol_version", "approved")
    assert [(one["version"], one["in_force"]) for one in listed(trial)] == [(1, True), (2, False)]


@pytest.mark.parametrize("time", ["2030-06-01T08:00:00+2000", "9999-12-31T23:59:59-1200"])
def test_a_time_that_the_database_cannot_give_back_is_refused_at_the_command_line(
    trial: Trial, tmp_path: Path, time: str
) -> None:
    file = tmp_path / "next.json"
    file.write_text(json.dumps({"protocol": "miwaves", "refit": {"nightly_hour": 5}}))
    words = ("protocol", "change", trial.name, str(file), "--reason", WHY, "--account", f"admin@{trial.name}")
    assert "must lie between" in output(trial, *words, "--effective-at", time)
    assert len(listed(trial)) == 1


def test_a_time_that_has_passed_means_at_once(trial: Trial) -> None:
    made = changed(trial, {"refit": {"nightly_hour": 5}}, effective_at="2020-01-01T00:00:00Z")
    assert made["in_force"] is True
    assert datetime.fromisoformat(made["effective_at"]) > datetime.now(UTC) - timedelta(minutes=5)

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
from tests.support.study import NOBODY, Study
from workers.trial import protocols as versions
from workers.trial import refit

WHY = "the safety board asked for it"
FINISHED = {"finished_ema": True, "activity_question_response": True, "cannabis_use": []}


def put(study: Study, document: dict[str, Any], **more: Any) -> TestResponse:
    """PUT /study/protocol."""
    body = {"document": {"protocol": "miwaves", **document}, "reason": WHY, **more}
    return study.call("PUT", "/study/protocol", body, role="admin")


def changed(study: Study, document: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The version that the same makes where it must succeed."""
    answer = put(study, document, **more)
    assert (answer.status_code, answer.get_json()["state"]) == (202, "approved"), answer.text
    return dict(listed(study)[-1])


def listed(study: Study) -> list[dict[str, Any]]:
    return list(study.call("GET", "/study/protocol/versions", role="researcher").get_json()["protocols"])


def refits(study: Study) -> list[int]:
    """Jobs that wait to be run."""
    query = "SELECT id FROM jobs WHERE study_id = %s AND kind = 'refit' AND state = 'queued'"
    return [int(row["id"]) for row in study.rows(query, study.study_id)]


def refused(answer: TestResponse) -> tuple[int, int, list[str]]:
    body = answer.get_json()
    named = [one["field"] for one in body.get("errors", [])]
    return answer.status_code, body["error_code"], named


def in_force(study: Study) -> dict[str, Any]:
    return dict(study.call("GET", "/study/protocol").get_json()["protocol"])


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


def test_before_the_first_decision_everything_may_change(study: Study) -> None:
    study.enrol("ann")
    seen = changed(study, {"prior": {"sigma_u": 0.02}, "schedule": {"study_length": 5}})
    assert (seen["version"], seen["in_force"], seen["reason"]) == (2, True, WHY)
    assert in_force(study)["protocol_hash"] == seen["protocol_hash"]
    assert study.decide("ann")["policy_id"] == 1  # the prior of the new version
    assert [(one["version"], one["in_force"]) for one in listed(study)] == [(1, False), (2, True)]
    (act,) = study.rows(
        "SELECT reason, before, after FROM audit WHERE study_id = %s AND act = 'protocol_version'",
        study.study_id,
    )
    assert (act["reason"], act["before"]["version"], act["after"]["version"]) == (WHY, 1, 2)
    assert act["after"]["hash"] == seen["protocol_hash"]


def test_the_protocol_of_a_closed_study_stays(study: Study) -> None:
    study.call("POST", "/study/close", {"reason": WHY}, role="admin")
    assert refused(put(study, {"schedule": {"study_length": 5}})) == (409, 932, [])


def test_once_decided_what_the_analysis_hangs_on_needs_an_amendment(study: Study) -> None:
    study.enrol("ann")
    study.live("ann", 3)
    change = {"allocation": {"C": 4.0}, "schedule": {"study_length": 2}, "refit": {"nightly_hour": 5}}
    assert refused(put(study, change)) == (
        409,
        940,
        ["document.allocation.C", "document.schedule.study_length"],
    )
    assert in_force(study)["version"] == 1
    assert changed(study, {"refit": {"nightly_hour": 5}, "schedule": {"study_length": 3}})["version"] == 2
    assert changed(study, change, amendment=True)["version"] == 3
    assert refits(study) == []
    assert refused(put(study, change)) == (409, 941, [])
    assert refused(put(study, {"refit": {"nightly_hour": 99}})) == (422, 905, ["document.refit.nightly_hour"])


def test_the_probability_changes_with_the_version_and_decisions_say_which(study: Study) -> None:
    participant = study.enrol("ann")
    first = study.decide("ann")
    study.end("ann")
    changed(study, {"allocation": {"lower": 0.55, "upper": 0.6}}, amendment=True)
    second = study.decide("ann")
    assert first["act_prob"] < 0.55 <= second["act_prob"] <= 0.6
    assert second["policy_id"] == first["policy_id"]  # what was learnt is of the same features and prior
    assert study.decide("ann", decision_index=1)["act_prob"] == first["act_prob"]
    rows = study.rows(
        "SELECT d.protocol_hash = p.hash AS same, p.version FROM decisions d JOIN protocols p"
        " ON p.id = d.protocol_id WHERE participant_id = %s ORDER BY decision_index",
        participant,
    )
    assert [(row["same"], row["version"]) for row in rows] == [(True, 1), (True, 2)]


def test_a_version_waits_for_its_time(study: Study) -> None:
    study.enrol("ann")
    soon = datetime.now(UTC) + timedelta(hours=1)
    later = {"effective_at": soon.isoformat()}
    assert refused(put(study, {"gate": {"mean_bound": 5.0}}, **later)) == (
        409,
        940,
        ["document.gate.mean_bound"],
    )
    made = changed(study, {"envelope": {"daily_cap": 0}}, **later)
    assert (made["in_force"], in_force(study)["version"]) == (False, 1)
    assert refused(put(study, {"refit": {"nightly_hour": 5}})) == (409, 942, [])
    versions.enter_due()
    assert study.decide("ann")["available"] is True
    study.end("ann")
    assert in_force(study)["version"] == 1
    statement = (
        "UPDATE protocols SET effective_at = now() - interval '1 s' WHERE study_id = %s AND version = 2"
    )
    assert study.tamper(statement, study.study_id) == 1
    for _ in range(2):
        versions.enter_due()
    assert in_force(study)["version"] == 2
    assert study.decide("ann")["unavailable_rule"] == "daily_cap"
    asked, entered = acts(study, "protocol_version", "protocol_in_force")
    assert (asked["act"], asked["role"], asked["after"]["in_force"]) == ("protocol_version", "admin", False)
    assert (entered["act"], entered["role"], entered["client_id"]) == ("protocol_in_force", "service", None)
    assert (entered["before"]["version"], entered["after"]["version"]) == (1, 2)
    assert entered["before"]["hash"] == asked["before"]["hash"] != entered["after"]["hash"]


def acts(study: Study, *names: str) -> list[dict[str, Any]]:
    """What the audit tells of these acts."""
    statement = (
        "SELECT act, role, client_id, before, after FROM audit WHERE study_id = %s AND act = ANY(%s)"
        " ORDER BY seq"
    )
    return study.rows(statement, study.study_id, list(names))


def test_a_version_that_begins_anew_by_beat_tells_its_policy_and_its_refit(study: Study) -> None:
    later = {"effective_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    changed(study, {"prior": {"sigma_u": 0.02}}, amendment=True, **later)
    study.tamper(
        "UPDATE protocols SET effective_at = now() - interval '1 s' WHERE study_id = %s AND version = 2",
        study.study_id,
    )
    versions.enter_due()
    (entered,) = acts(study, "protocol_in_force")
    assert (entered["before"]["policy_id"], entered["after"]["policy_id"]) == (0, 1)
    assert [entered["after"]["refit_job_id"]] == refits(study)


def test_a_version_in_force_at_once_leaves_one_row(study: Study) -> None:
    changed(study, {"prior": {"sigma_u": 0.02}})
    (row,) = acts(study, "protocol_version", "protocol_in_force")
    assert (row["before"]["policy_id"], row["after"]["policy_id"]) == (0, 1)
    assert (row["after"]["in_force"], [row["after"]["refit_job_id"]]) == (True, refits(study))


def test_a_waiting_version_can_be_taken_back(study: Study) -> None:
    later = {"effective_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    changed(study, {"envelope": {"daily_cap": 0}}, **later)
    assert changed(study, {}, amendment=True, **later)["version"] == 3
    study.tamper(
        "UPDATE protocols SET effective_at = now() - interval '1 s' WHERE study_id = %s AND version > 1",
        study.study_id,
    )
    versions.enter_due()
    assert (in_force(study)["version"], in_force(study)["document"]) == (3, default_document("miwaves"))


def test_a_shorter_study_ends_who_is_beyond_its_end(study: Study) -> None:
    people = {name: study.enrol(name) for name in ("past", "open", "before")}
    study.live("past", 3)
    study.live("open", 2)
    study.decide("open")
    study.live("before", 1)
    changed(study, {"schedule": {"study_length": 3}})
    phases = {name: study.show(number)["phase"] for name, number in people.items()}
    assert phases == {"past": "ENDED", "open": "COMPLETED_AWAITING_REVIEW", "before": "STARTED"}
    study.end("open")
    assert study.show(people["open"])["phase"] == "ENDED"
    assert study.post_actions("past").status_code == 409


@dataclass
class Shifted(MiWaves):
    """The same variables, and another meaning of one of them."""

    name = "shifted"
    feature_version = "shifted-1"


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(designs.DESIGNS, "shifted", Shifted())
    return "shifted"


def learn(study: Study) -> dict[str, Any]:
    """A refit that is run here; its job."""
    job_id = study.call("POST", "/update_parameters", role="admin").get_json()["job_id"]
    refit.run(job_id)
    return dict(study.job(job_id))


def test_no_policy_of_other_features_serves_a_new_version(study: Study, shifted: str) -> None:
    for name in ("ann", "bob"):
        study.enrol(name)
        study.live(name, 4)
    assert learn(study)["policy_id"] == 1
    changed(study, {"protocol": shifted}, amendment=True)
    found = [study.decide(name, **FINISHED) for name in ("ann", "bob")]
    assert {(one["policy_id"], one["fallback_level"]) for one in found} == {(2, "F0")}
    assert {tuple(one["state"]) for one in found} == {(1.0, 0.0, 1.0)}  # S1 of this reward alone
    (job_id,) = refits(study)
    refit.run(job_id)
    assert study.call("GET", "/study").get_json()["policy_id"] == 2  # no row under the new features yet
    for name in ("ann", "bob"):
        study.end(name)
        study.live(name, 3)
    assert learn(study)["policy_id"] == 3
    (policy,) = study.rows(
        "SELECT feature_version, row_count FROM policies WHERE study_id = %s AND policy_id = 3",
        study.study_id,
    )
    assert (policy["feature_version"], policy["row_count"]) == ("shifted-1", 6)
    older = study.call("POST", "/policies/1/activate", {"reason": WHY}, role="admin")
    assert refused(older) == (409, 935, [])
    assert study.decide("ann")["policy_id"] == 3


@pytest.mark.parametrize("damage", ["UPDATE policies SET advantage_mean = '{}'", "DELETE FROM policies"])
def test_no_rung_of_the_ladder_leads_to_other_features(study: Study, shifted: str, damage: str) -> None:
    study.enrol("ann")
    study.live("ann", 4)
    assert learn(study)["policy_id"] == 1
    changed(study, {"protocol": shifted}, amendment=True)
    assert study.tamper(f"{damage} WHERE study_id = %s AND policy_id = 2", study.study_id) == 1
    assert study.decide("ann")["fallback_level"] == "F3"
    study.end("ann")
    study.tamper("UPDATE studies SET policy_id = 1 WHERE id = %s", study.study_id)  # as nobody should
    assert study.decide("ann")["fallback_level"] == "F3"


def test_a_fit_that_a_new_version_overtakes_is_dropped(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.enrol("ann")
    study.live("ann", 4)
    fit = refit._fit

    def overtaken(*arguments: Any) -> Any:
        changed(study, {"prior": {"noise_variance": 0.9}}, amendment=True)
        return fit(*arguments)

    monkeypatch.setattr(refit, "_fit", overtaken)
    job = learn(study)
    assert (job["state"], job["policy_id"]) == ("done", 1)
    (serving,) = study.rows("SELECT policy_id FROM studies WHERE id = %s", study.study_id)
    (prior,) = study.rows(
        "SELECT noise_variance, row_count FROM policies WHERE study_id = %s AND policy_id = 1", study.study_id
    )
    assert (serving["policy_id"], prior["noise_variance"], prior["row_count"]) == (1, 0.9, 0)
    monkeypatch.setattr(refit, "_fit", fit)
    assert learn(study)["policy_id"] == 2


def test_a_stored_document_that_lacks_later_keys_keeps_its_meaning_and_its_hash(study: Study) -> None:
    study.enrol("ann")
    before = in_force(study)
    old = {key: value for key, value in before["document"].items() if key not in {"envelope", "fallback"}}
    study.tamper(
        "UPDATE protocols SET document = %s, hash = 'old' WHERE study_id = %s",
        json.dumps(old),
        study.study_id,
    )
    study.decide("ann")
    (row,) = study.rows("SELECT protocol_hash FROM decisions WHERE study_id = %s", study.study_id)
    assert row["protocol_hash"] == "old"


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


def test_a_time_that_has_passed_means_at_once(study: Study) -> None:
    made = changed(study, {"refit": {"nightly_hour": 5}}, effective_at="2020-01-01T00:00:00Z")
    assert made["in_force"] is True
    assert datetime.fromisoformat(made["effective_at"]) > datetime.now(UTC) - timedelta(minutes=5)

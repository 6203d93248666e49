"""Protocols as files and in versions: round trips, refused changes, and what comes with a new version."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from werkzeug.test import TestResponse

from algorithm.trial.protocol import default_document
from tests.support.study import Study
from workers.trial import protocols as versions

WHY = "the safety board asked for it"


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


def test_a_time_that_has_passed_means_at_once(study: Study) -> None:
    made = changed(study, {"refit": {"nightly_hour": 5}}, effective_at="2020-01-01T00:00:00Z")
    assert made["in_force"] is True
    assert datetime.fromisoformat(made["effective_at"]) > datetime.now(UTC) - timedelta(minutes=5)

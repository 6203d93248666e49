"""The safety envelope in the service: what a decision says where a rule forbids a message, and its replay."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.core import studies
from models.core.session import transact
from replay.checks import replay
from replay.findings import Report
from tests.support.study import Study
from workers.trial import refit

ALWAYS = ("envelope.daily_cap=48",)
RARELY = ("allocation.lower=0.999998", "allocation.upper=0.999999")  # a message wherever none is forbidden


def test_the_app_may_say_that_somebody_is_not_available(study: Study) -> None:
    participant = study.enrol("ann")
    told = study.decide("ann", available=False, app_use_flag=True)
    nothing = {"action": 0, "act_prob": 0.0, "policy_id": None, "fallback_level": "none", "available": False}
    assert {name: told[name] for name in nothing} == nothing
    assert (told["unavailable_rule"], told["state"]) == ("app", [0.0, 0.0, 0.0])
    assert study.decide("ann", available=False, app_use_flag=True) == told
    (seen,) = study.call("GET", "/decisions", role="researcher").get_json()["decisions"]
    assert (seen["available"], seen["unavailable_rule"], seen["reward"]) == (False, "app", 1.0)
    (row,) = study.rows("SELECT * FROM decisions WHERE participant_id = %s", participant)
    assert row["advantage_mean"] is None


def test_an_unavailable_point_is_no_row_and_its_reward_still_counts(study: Study) -> None:
    study.enrol("ann")
    finished = {"finished_ema": True, "activity_question_response": True, "cannabis_use": []}
    for number in range(4):
        study.decide("ann", available=number != 1, **finished)
        study.end("ann")
    states = study.rows("SELECT state FROM decisions WHERE study_id = %s ORDER BY id", study.study_id)
    assert [row["state"][0] for row in states] == [1.0] * 4
    refit.run(study.call("POST", "/update_parameters").get_json()["job_id"])
    rows = study.rows("SELECT decision_index, outcome FROM learning_rows WHERE study_id = %s", study.study_id)
    assert [(row["decision_index"], row["outcome"]) for row in rows] == [(1, 3.0), (3, 3.0)]
    assert study.call("GET", "/study").get_json()["fallbacks"] == {"F0": 3, "none": 1}


@pytest.mark.parametrize(
    ("setting", "rules"),
    [
        ("envelope.cool_down_hours=20", [None, "cool_down", None, "cool_down"]),
        ("envelope.daily_cap=1", [None, "daily_cap", None, "daily_cap"]),
        ("envelope.weekly_cap=2", [None, None, "weekly_cap", "weekly_cap"]),
        ('envelope.quiet_hours={"from": 1800, "to": 900}', ["quiet_hours"] * 4),
        ('envelope.quiet_hours={"from": 900, "to": 1800}', [None] * 4),
    ],
)
def test_each_rule_forbids_what_it_says(
    new_study: Callable[..., Study], setting: str, rules: list[str | None]
) -> None:
    study = new_study(*RARELY, setting)
    study.enrol("ann")
    found = []
    for number in range(4):  # twelve hours apart: the points before are moved back
        hour = "08" if number % 2 == 0 else "20"
        decided = study.decide("ann", decision_time=f"2026-06-0{1 + number // 2}T{hour}:00:00+02:00")
        assert decided["available"] == (decided["unavailable_rule"] is None) == (decided["act_prob"] > 0)
        found.append(decided["unavailable_rule"])
        study.end("ann")
        study.tamper(
            "UPDATE decisions SET act_gen_timestamp = act_gen_timestamp - interval '12 hours', action ="
            " CASE WHEN available THEN 1 ELSE 0 END WHERE study_id = %s",
            study.study_id,
        )
    assert found == rules


def test_a_study_without_such_rules_reads_no_history(new_study: Callable[..., Study]) -> None:
    for settings, days in (((), 0), (ALWAYS, 8)):
        study = new_study(*settings)
        (row,) = study.rows("SELECT looks_back_days FROM protocols WHERE study_id = %s", study.study_id)
        assert row["looks_back_days"] == days


def test_the_first_statement_brings_every_message_that_counts(new_study: Callable[..., Study]) -> None:
    study = new_study(*RARELY, "envelope.weekly_cap=3")
    study.enrol("ann")
    study.live("ann", 3)
    study.tamper("UPDATE decisions SET action = 1 WHERE study_id = %s", study.study_id)
    assert study.decide("ann")["unavailable_rule"] == "weekly_cap"
    study.end("ann")
    study.tamper(
        "UPDATE decisions SET act_gen_timestamp = act_gen_timestamp - interval '7 days'"
        " WHERE study_id = %s AND decision_index = 1",
        study.study_id,
    )
    assert study.decide("ann")["available"] is True


def test_a_process_that_knew_no_such_rule_keeps_a_new_one_at_once(new_study: Callable[..., Study]) -> None:
    study = new_study(*RARELY)
    study.enrol("ann")
    study.live("ann", 3)
    often = {"allocation": {"lower": 0.999998, "upper": 0.999999}}
    document = {"protocol": "miwaves", "envelope": {"weekly_cap": 3}, **often}
    body = {"document": document, "reason": "too many messages"}
    assert study.call("PUT", "/study/protocol", body, role="admin").status_code == 202
    assert study.decide("ann")["unavailable_rule"] == "weekly_cap"


def exported(study: Study, folder: Path) -> Report:
    """The replay of a study's export, with its key."""
    study.service.command("export", study.name, str(folder), "--account", f"researcher@{study.name}")
    key = transact(lambda session: studies.by_id(session, study.study_id).study_key)
    return replay(folder, bytes(key))


def lived(new_study: Callable[..., Study]) -> Study:
    """A trial with unavailable points of several rules, under three versions of its protocol."""
    study = new_study(*RARELY, "envelope.daily_cap=1", "refit.min_interval_minutes=0")
    for name in ("ann", "bob", "eve"):
        study.enrol(name)
        for number in range(6):
            told = {"decision_time": "2026-06-01T12:00:00+02:00", "app_use_flag": name == "bob"}
            study.decide(name, available=None if number != 2 else False, **told)
            study.end(name)
    refit.run(study.call("POST", "/update_parameters").get_json()["job_id"])
    often = {"allocation": {"lower": 0.999998, "upper": 0.999999}}
    for document in (
        {"envelope": {"daily_cap": 9, "cool_down_hours": 30}, **often},
        {"envelope": {"weekly_cap": 40}, "prior": {"sigma_u": 0.02}, **often},
    ):
        body: dict[str, Any] = {
            "document": {"protocol": "miwaves", **document},
            "reason": "x",
            "amendment": True,
        }
        assert study.call("PUT", "/study/protocol", body, role="admin").status_code == 202
        study.live("ann", 2)
    refit.run(study.call("POST", "/update_parameters").get_json()["job_id"])
    study.live("bob", 2)
    return study


def test_the_rules_are_replayed(new_study: Callable[..., Study], tmp_path: Path) -> None:
    study = lived(new_study)
    report = exported(study, tmp_path / "export")
    assert not report.first, "\n".join(report.lines())
    rules = study.rows("SELECT unavailable_rule AS rule FROM decisions WHERE study_id = %s", study.study_id)
    assert Counter(row["rule"] for row in rules) == {None: 7, "app": 3, "daily_cap": 12, "cool_down": 2}
    assert report.held["availability"] == len(rules)


@pytest.mark.parametrize(
    "change",
    [
        "unavailable_rule = 'weekly_cap' WHERE unavailable_rule = 'app'",
        "unavailable_rule = NULL, available = true WHERE unavailable_rule = 'app'",
        "unavailable_rule = 'quiet_hours', available = false WHERE available AND decision_index = 1",
        "act_prob = 0.3 WHERE unavailable_rule = 'app'",
        "policy_id = 0 WHERE unavailable_rule = 'app'",
    ],
)
def test_an_altered_rule_is_found(study: Study, tmp_path: Path, change: str) -> None:
    study.enrol("ann")
    for number in range(3):
        study.decide("ann", available=number != 1)
        study.end("ann")
    statement, _, which = change.partition(" WHERE ")
    done = study.tamper(f"UPDATE decisions SET {statement} WHERE study_id = %s AND {which}", study.study_id)
    assert done == 1
    assert exported(study, tmp_path / "export").first

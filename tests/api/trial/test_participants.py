"""Enrolment: the same body is the same person, and each field's rules have their code."""

from typing import Any

import pytest

from tests.support.service import REGISTRATION
from tests.support.study import Trial


def codes(trial: Trial, **changes: Any) -> tuple[int, int]:
    """Status and error_code of an enrolment with these changes."""
    answer = trial.call("POST", "/register", {"user_id": "ann", **REGISTRATION, **changes})
    assert answer.json is not None
    return answer.status_code, answer.json.get("error_code", 0)


def test_the_same_body_again_is_a_retry_for_an_hour(trial: Trial) -> None:
    ann = trial.enrol("ann")
    assert trial.enrol("ann") == ann
    trial.tamper("UPDATE participants SET created_at = created_at - interval '59 minutes' WHERE id = %s", ann)
    assert trial.enrol("ann") == ann
    trial.tamper("UPDATE participants SET created_at = created_at - interval '2 minutes' WHERE id = %s", ann)
    assert codes(trial) == (409, 108)


def test_a_closed_study_enrols_nobody_and_goes_on_answering_retries(trial: Trial) -> None:
    ann = trial.enrol("ann")
    assert trial.call("POST", "/study/close", {"reason": "a test"}, role="admin").status_code == 202
    assert trial.enrol("ann") == ann
    assert codes(trial, rl_end_date="2030-01-01") == (409, 108)
    assert codes(trial, user_id="ben") == (409, 932)
    assert codes(trial, user_id="cleo", timezone="Asia/Tokyo") == (409, 932)
    assert len(trial.rows("SELECT FROM participants WHERE study_id = %s", trial.study_id)) == 1


def test_a_paused_study_enrols(trial: Trial) -> None:
    assert trial.call("POST", "/study/pause", {"reason": "a test"}, role="admin").status_code == 200
    assert codes(trial) == (201, 0)


def test_another_body_for_a_known_user_is_refused(trial: Trial) -> None:
    trial.enrol("ann")
    assert codes(trial, rl_end_date="2030-01-01") == (409, 108)
    assert codes(trial, timezone="Europe/Berlin") == (409, 108)


def test_a_retry_after_the_first_decision_does_not_begin_anew(trial: Trial) -> None:
    ann = trial.enrol("ann")
    trial.decide("ann", timezone="Asia/Tokyo")
    assert trial.enrol("ann") == ann
    assert trial.show(ann)["phase"] == "STARTED"
    assert trial.show(ann)["timezone"] == "Asia/Tokyo"


def test_the_same_name_in_another_study_is_another_person(trial: Trial, new_trial: Any) -> None:
    assert trial.enrol("ann") != new_trial().enrol("ann")


def test_without_a_zone_the_studys_is_taken(new_trial: Any) -> None:
    trial = new_trial(timezone="Asia/Kolkata")
    assert trial.show(trial.enrol("ann"))["timezone"] == "Asia/Kolkata"
    assert trial.show(trial.enrol("ben", timezone="Europe/Paris"))["timezone"] == "Europe/Paris"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"user_id": ""}, 100),
        ({"rl_start_date": "2019-12-31"}, 101),
        ({"rl_start_date": "01.01.2020"}, 101),
        ({"rl_start_date": "1704067200"}, 101),
        ({"rl_start_date": 1704067200}, 101),
        ({"rl_end_date": "2019-12-31"}, 102),
        ({"rl_end_date": "2100-01-01"}, 102),
        ({"consent_start_date": None}, 103),
        ({"consent_start_date": "0"}, 103),
        ({"consent_end_date": "2019-12-31"}, 104),
        ({"morning_notification_time_start": [800] * 6}, 105),
        ({"morning_notification_time_start": [860] * 7}, 105),
        ({"evening_notification_time_start": [1900] * 6 + [2400]}, 106),
        ({"evening_notification_time_start": [1900] * 6 + [800]}, 106),
        ({"timezone": "Europe/Atlantis"}, 110),
        ({"timezone": "localtime"}, 110),
        ({"timezone": "Factory"}, 110),
    ],
)
def test_each_field_has_its_code(trial: Trial, changes: dict[str, Any], code: int) -> None:
    assert codes(trial, **changes) == (422, code)
    assert trial.rows("SELECT FROM participants WHERE study_id = %s", trial.study_id) == []

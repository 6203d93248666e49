"""Enrolment: the same body is the same person, and each field's rules have their code."""

from typing import Any

import pytest

from tests.support.study import REGISTRATION, Study


def codes(study: Study, **changes: Any) -> tuple[int, int]:
    """Status and error_code of an enrolment with these changes."""
    answer = study.call("POST", "/register", {"user_id": "ann", **REGISTRATION, **changes})
    assert answer.json is not None
    return answer.status_code, answer.json.get("error_code", 0)


def test_the_same_body_again_is_a_retry_for_an_hour(study: Study) -> None:
    ann = study.enrol("ann")
    assert study.enrol("ann") == ann
    study.tamper("UPDATE participants SET created_at = created_at - interval '59 minutes' WHERE id = %s", ann)
    assert study.enrol("ann") == ann
    study.tamper("UPDATE participants SET created_at = created_at - interval '2 minutes' WHERE id = %s", ann)
    assert codes(study) == (409, 108)


def test_a_closed_study_enrols_nobody_and_goes_on_answering_retries(study: Study) -> None:
    ann = study.enrol("ann")
    assert study.call("POST", "/study/close", {"reason": "a test"}, role="admin").status_code == 202
    assert study.enrol("ann") == ann
    assert codes(study, rl_end_date="2030-01-01") == (409, 108)
    assert codes(study, user_id="ben") == (409, 932)
    assert codes(study, user_id="cleo", timezone="Asia/Tokyo") == (409, 932)
    assert len(study.rows("SELECT FROM participants WHERE study_id = %s", study.study_id)) == 1


def test_a_paused_study_enrols(study: Study) -> None:
    assert study.call("POST", "/study/pause", {"reason": "a test"}, role="admin").status_code == 200
    assert codes(study) == (201, 0)


def test_another_body_for_a_known_user_is_refused(study: Study) -> None:
    study.enrol("ann")
    assert codes(study, rl_end_date="2030-01-01") == (409, 108)
    assert codes(study, timezone="Europe/Berlin") == (409, 108)


def test_a_retry_after_the_first_decision_does_not_begin_anew(study: Study) -> None:
    ann = study.enrol("ann")
    study.decide("ann", timezone="Asia/Tokyo")
    assert study.enrol("ann") == ann
    assert study.show(ann)["phase"] == "STARTED"
    assert study.show(ann)["timezone"] == "Asia/Tokyo"


def test_the_same_name_in_another_study_is_another_person(study: Study, new_study: Any) -> None:
    assert study.enrol("ann") != new_study().enrol("ann")


def test_without_a_zone_the_studys_is_taken(new_study: Any) -> None:
    study = new_study(timezone="Asia/Kolkata")
    assert study.show(study.enrol("ann"))["timezone"] == "Asia/Kolkata"
    assert study.show(study.enrol("ben", timezone="Europe/Paris"))["timezone"] == "Europe/Paris"


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
def test_each_field_has_its_code(study: Study, changes: dict[str, Any], code: int) -> None:
    assert codes(study, **changes) == (422, code)
    assert study.rows("SELECT FROM participants WHERE study_id = %s", study.study_id) == []

"""Time as it is stored with decisions: offsets, zones that change, early, late and missed calls."""

from typing import Any

import pytest

from models.core import connections
from models.core.session import transact
from models.trial.participants import zones
from tests.support.service import Service
from tests.support.study import Study, begin


def stored(study: Study, rid: int) -> dict[str, Any]:
    """A decision's row, with its local wall clock."""
    (row,) = study.rows(
        "SELECT *, to_char(decision_time AT TIME ZONE 'UTC'"
        " + utc_offset_minutes * interval '1 minute', 'YYYY-MM-DD HH24:MI') AS wall"
        " FROM decisions WHERE id = %s",
        rid,
    )
    return row


def discrepancies(study: Study, rid: int) -> list[tuple[str, int, str, str]]:
    """(field, code, issued, reported) of a decision's discrepancies."""
    found = study.rows(
        "SELECT field, code, issued, reported FROM discrepancies WHERE decision_id = %s ORDER BY id", rid
    )
    return [(row["field"], row["code"], row["issued"], row["reported"]) for row in found]


def history(participant_id: int) -> list[tuple[int, str]]:
    """(decision index, zone) of a participant's zones."""
    found = transact(lambda opened: zones(opened, participant_id))
    return [(zone.decision_index, zone.timezone) for zone in found]


def test_the_apps_time_wins_over_the_index_and_both_are_kept(study: Study) -> None:
    study.enrol("ann", timezone="Europe/Berlin")
    rid = study.decide("ann", decision_time="2026-06-01T20:00:00+02:00")["rid"]
    row = stored(study, rid)
    assert (row["evening"], row["utc_offset_minutes"], row["wall"]) == (True, 120, "2026-06-01 20:00")
    assert discrepancies(study, rid) == [("time_of_day", 214, "morning", "evening")]


def test_the_state_has_the_time_of_day_that_was_used(study: Study) -> None:
    study.enrol("ann")
    assert study.decide("ann", decision_time="2026-06-01T20:00:00Z")["state"][1] == 1
    study.end("ann")
    assert study.decide("ann")["state"][1] == 1
    study.end("ann")
    assert study.decide("ann")["state"][1] == 0


def test_a_new_zone_holds_from_its_decision_on_and_every_zone_is_kept(study: Study) -> None:
    ann = study.enrol("ann", timezone="Asia/Kolkata")
    offsets = []
    for zone in ({}, {"timezone": "Asia/Tokyo"}, {}, {"timezone": "Asia/Kolkata"}):
        offsets.append(stored(study, study.decide("ann", **zone)["rid"])["utc_offset_minutes"])
        study.end("ann")
    assert offsets == [330, 540, 540, 330]
    assert history(ann) == [(0, "Asia/Kolkata"), (2, "Asia/Tokyo"), (4, "Asia/Kolkata")]
    seen = study.show(ann)
    assert seen["timezone"] == "Asia/Kolkata"
    assert [zone["timezone"] for zone in seen["zones"]] == ["Asia/Kolkata", "Asia/Tokyo", "Asia/Kolkata"]


def test_a_zone_begins_with_its_decision(study: Study) -> None:
    ann = study.enrol("ann")
    rid = study.decide("ann", timezone="Asia/Tokyo")["rid"]
    (zone,) = study.rows(
        "SELECT since FROM participant_zones WHERE participant_id = %s AND decision_index = 1", ann
    )
    assert zone["since"] == stored(study, rid)["act_gen_timestamp"]


def test_the_same_zone_again_and_repeats_change_nothing(study: Study) -> None:
    ann = study.enrol("ann", timezone="Asia/Tokyo")
    first = study.decide("ann", timezone="Asia/Tokyo")
    assert study.decide("ann", timezone="Europe/Berlin") == first
    assert history(ann) == [(0, "Asia/Tokyo")]
    assert study.show(ann)["timezone"] == "Asia/Tokyo"


def test_a_zone_that_is_none_is_refused(study: Study) -> None:
    study.enrol("ann")
    for zone in ("Mars/Olympus", "", "UTC+2", "../etc/passwd"):
        answer = study.post_actions("ann", timezone=zone)
        assert (answer.status_code, answer.json["error_code"]) == (422, 110)  # type: ignore[index]


def test_a_refused_decision_moves_nobody(study: Study) -> None:
    ann = study.enrol("ann", rl_end_date="2020-01-02")
    assert study.post_actions("ann", timezone="Asia/Tokyo").status_code == 409
    assert history(ann) == [(0, "UTC")]


def test_the_given_zone_is_the_one_that_the_given_time_is_held_against(study: Study) -> None:
    study.enrol("ann", timezone="Europe/Berlin")
    landed = study.decide("ann", decision_time="2026-06-01T08:00:00-04:00", timezone="America/New_York")
    assert discrepancies(study, landed["rid"]) == []
    study.end("ann")
    quiet = study.decide("ann", decision_time="2026-06-01T20:00:00+02:00")
    assert discrepancies(study, quiet["rid"]) == [("utc_offset_minutes", 215, "-240", "120")]
    assert stored(study, quiet["rid"])["utc_offset_minutes"] == 120


def test_the_local_date_after_a_flight_is_the_new_zones(study: Study) -> None:
    """One instant, two dates: the last day of the study is over in the east, and not yet in the west."""
    study.enrol("ann", rl_end_date="2026-06-01", timezone="Pacific/Auckland")
    east = study.post_actions("ann", decision_time="2026-06-02T08:00:00+12:00")
    assert (east.status_code, east.json["error_code"]) == (409, 213)  # type: ignore[index]
    west = study.post_actions(
        "ann", decision_time="2026-06-01T13:00:00-07:00", timezone="America/Los_Angeles"
    )
    assert west.status_code == 200


def test_days_of_23_and_25_hours_count_as_days(study: Study) -> None:
    ann = study.enrol("ann", timezone="Europe/Berlin")
    days = []
    for time in (
        *("2026-10-24T08:00:00+02:00", "2026-10-24T19:00:00+02:00"),
        *("2026-10-25T08:00:00+01:00", "2026-10-25T19:00:00+01:00"),
        *("2027-03-28T08:00:00+02:00", "2027-03-28T19:00:00+02:00"),
    ):
        days.append(study.show(ann)["study_day"])
        assert discrepancies(study, study.decide("ann", decision_time=time)["rid"]) == []
        study.end("ann")
    assert days == [1, 1, 2, 2, 3, 3]


def test_an_early_call_is_the_next_point_at_the_time_it_says(study: Study) -> None:
    study.enrol("ann")
    study.decide("ann", decision_time="2026-06-01T08:00:00Z")
    study.end("ann")
    early = study.decide("ann", decision_time="2026-06-01T08:05:00Z")
    assert (early["decision_index"], early["state"][1]) == (2, 0)
    assert discrepancies(study, early["rid"]) == [("time_of_day", 214, "evening", "morning")]


def test_a_late_call_is_measured_by_the_servers_clock_alone(study: Study) -> None:
    ann = study.enrol("ann")
    first = study.decide("ann", decision_time="2020-06-01T08:00:00Z")
    assert study.decide("ann", decision_time="2030-06-01T08:00:00Z")["rid"] == first["rid"]
    study.age(first["rid"], 9)
    assert study.decide("ann", decision_time="2020-06-01T08:00:00Z")["decision_index"] == 2
    assert study.windows(ann) == [(1, "end_missing")]


def test_missed_calls_leave_no_points_unless_an_index_says_so(study: Study) -> None:
    ann = study.enrol("ann")
    study.decide("ann", decision_time="2026-06-01T08:00:00Z")
    study.end("ann")
    assert study.decide("ann", decision_time="2026-06-04T19:00:00Z")["decision_index"] == 2
    study.end("ann")
    assert (
        study.decide("ann", decision_time="2026-06-06T08:00:00Z", decision_index=11)["decision_index"] == 11
    )
    assert study.windows(ann)[2:] == [(index, "missed") for index in range(3, 11)]
    assert study.show(ann)["study_day"] == 6


def test_times_without_an_offset_or_of_another_age_are_refused(study: Study) -> None:
    study.enrol("ann")
    old, far = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"
    for time in ("2026-06-01T08:00:00", old, far, "soon", "1704067200", "2026-06-01", 1704067200):
        answer = study.post_actions("ann", decision_time=time)
        assert (answer.status_code, answer.json["error_code"]) == (422, 905)  # type: ignore[index]


@pytest.mark.parametrize("offset", ["+15:01", "-15:01", "+16:00", "-16:00", "+23:59"])
def test_an_offset_of_no_place_is_refused_wherever_a_time_is_taken(study: Study, offset: str) -> None:
    study.enrol("ann")
    time, document = f"2026-06-01T08:00:00{offset}", {"protocol": "miwaves", "refit": {"nightly_hour": 5}}
    point = {"user_id": "ann", "decision_time": time}
    version = {"document": document, "reason": "a test", "effective_at": time}
    for answer, field in (
        (study.post_actions("ann", decision_time=time), "decision_time"),
        (study.call("POST", "/decision_points", point), "decision_time"),
        (study.call("PUT", "/study/protocol", version, role="admin"), "effective_at"),
    ):
        body: dict[str, Any] = answer.get_json()
        assert (answer.status_code, body["error_code"]) == (422, 905)
        assert [error["field"] for error in body["errors"]] == [field]


@pytest.mark.parametrize(("offset", "minutes"), [("+15:00", 900), ("-15:00", -900)])
def test_the_widest_offset_is_stored_as_it_is(study: Study, offset: str, minutes: int) -> None:
    study.enrol("ann")
    row = stored(study, study.decide("ann", decision_time=f"2026-06-01T08:00:00{offset}")["rid"])
    assert (row["utc_offset_minutes"], row["wall"]) == (minutes, "2026-06-01 08:00")


def test_a_server_with_a_zone_of_its_own_answers_repeats_in_utc(shared_service: Service) -> None:
    study = begin(shared_service)
    name = study.rows("SELECT current_database() AS name")[0]["name"]
    study.tamper(f"ALTER DATABASE {name} SET timezone = 'Asia/Kathmandu'")
    connections.forget()
    try:
        study.enrol("ann")
        first = study.post_actions("ann")
        assert study.post_actions("ann").text == first.text
        assert '"act_gen_timestamp":"' in first.text
        assert first.json["act_gen_timestamp"].endswith("Z")  # type: ignore[index]
    finally:
        study.tamper(f"ALTER DATABASE {name} RESET timezone")
        connections.forget()

"""Every kind of incident, provoked against a real database, and how each comes to its end."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models import heartbeats, incidents, jobs
from models.heartbeats import BEAT, WORKERS
from models.incidents import CALM, OF_A_STUDY, OF_THE_DEPLOYMENT
from models.session import transact
from tests.api.trial import cursor
from tests.service import Service
from tests.workers.test_refit import play, run
from workers import conditions, refit, sentry, watch

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SOON = 2 * MINUTE


@dataclass
class Place:
    """A study, its rows past the service, and its incidents."""

    service: Service
    database_url: str
    start: datetime

    def tamper(self, statement: str, *parameters: object) -> int:
        """Change rows behind the service's back; how many it was."""
        with cursor(self.database_url) as found:
            found.execute(statement, parameters)
            return found.rowcount

    def look(self, after: timedelta) -> dict[str, dict[str, Any]]:
        """The open incidents by kind, after the watchdog looked so long after the test's start."""
        watch.run(self.start + after)
        return {one["kind"]: one for one in self.listed("?open=true")}

    def listed(self, query: str = "") -> list[dict[str, Any]]:
        """GET /incidents."""
        answer = self.service.call("GET", f"/incidents{query}", caller="researcher")
        found: list[dict[str, Any]] = answer.get_json()["incidents"]
        return found

    def is_over(self, kind: str, after: timedelta) -> bool:
        """Whether the kind turned green when the watchdog looked at that time."""
        assert kind not in self.look(after)
        last = [one for one in self.listed() if one["kind"] == kind][-1]
        return last["level"] == "green" and last["resolved_at"] is not None

    def point(self, user_id: str = "ann", ended: bool = True) -> None:
        """One decision, and the end of its window."""
        assert self.service.decide(user_id).status_code == 200
        if ended:
            assert self.service.end(user_id).status_code == 202


@pytest.fixture
def place(service: Service, fresh_database: str) -> Place:
    service.enrol("ann")
    return Place(service, fresh_database, datetime.now(UTC))


def test_a_study_where_all_goes_well_has_no_incident(place: Place) -> None:
    place.point()
    place.tamper("UPDATE windows SET state = 'ingested'")
    place.tamper("UPDATE jobs SET state = 'done'")
    assert place.look(SOON) == {}
    assert place.look(23 * HOUR) == {}


def test_no_decision_where_some_should_be(place: Place) -> None:
    assert place.look(23 * HOUR) == {}
    seen = place.look(25 * HOUR)["no_decision"]
    assert (seen["level"], seen["detail"]) == ("red", {"participants": 1, "hours": 24})
    place.point(ended=False)
    place.tamper("UPDATE decisions SET act_gen_timestamp = %s", place.start + 25 * HOUR)
    assert place.is_over("no_decision", 25 * HOUR + CALM)


def test_a_pause_is_no_silence(place: Place) -> None:
    place.service.call("POST", "/study/pause", {"reason": "a test"}, caller="admin")
    assert "no_decision" not in place.look(25 * HOUR)
    place.service.call("POST", "/study/resume", {"reason": "a test"}, caller="admin")
    assert "no_decision" not in place.look(23 * HOUR)
    assert "no_decision" in place.look(25 * HOUR)


def test_a_window_that_nobody_ends(place: Place) -> None:
    place.point(ended=False)
    hours = 1000 * HOUR  # beyond any protocol's window
    assert place.look(hours)["window_not_ended"]["level"] == "red"
    assert place.service.end("ann").status_code == 202
    assert place.is_over("window_not_ended", hours + CALM)


def test_a_window_that_the_service_ended_itself(place: Place) -> None:
    for index in (1, 2):
        place.service.decide("ann", decision_index=index)
    seen = place.look(SOON)["window_not_ended"]
    assert (seen["level"], seen["detail"]) == ("yellow", {"open": 0, "closed_for_the_app": 1})
    place.service.end("ann")
    assert place.is_over("window_not_ended", 25 * HOUR)


def test_a_window_that_is_not_ingested(place: Place) -> None:
    place.point()
    assert "window_not_ingested" not in place.look(59 * MINUTE)
    assert place.look(61 * MINUTE)["window_not_ingested"]["level"] == "yellow"
    assert place.look(301 * MINUTE)["window_not_ingested"]["level"] == "red"
    place.tamper("UPDATE windows SET state = 'failed'")
    seen = place.look(302 * MINUTE)["window_not_ingested"]
    assert (seen["level"], seen["detail"]["failed"]) == ("yellow", 1)
    place.tamper("UPDATE windows SET state = 'ingested'")
    assert place.is_over("window_not_ingested", 310 * MINUTE)


def test_a_refit_that_is_late(place: Place) -> None:
    place.point()
    place.point()
    assert "refit_late" not in place.look(25 * HOUR)
    assert place.look(27 * HOUR)["refit_late"]["level"] == "yellow"
    assert place.look(53 * HOUR)["refit_late"]["level"] == "red"
    assert run(place.service)["state"] == "done"
    assert place.is_over("refit_late", 54 * HOUR)


def test_refits_without_new_rows(place: Place) -> None:
    place.point()
    place.point()
    job_id = place.service.call("POST", "/update_parameters").get_json()["job_id"]
    later = place.start + 5 * MINUTE
    place.tamper("UPDATE jobs SET state = 'done', claimed_at = %s WHERE id = %s", later, job_id)
    seen = place.look(6 * MINUTE)["refit_without_rows"]
    assert (seen["level"], seen["detail"]) == ("yellow", {"decisions": 1})
    place.tamper("UPDATE jobs SET state = 'queued', claimed_at = NULL WHERE id = %s", job_id)
    refit.run(job_id)
    assert place.is_over("refit_without_rows", 12 * MINUTE)


def test_a_queue_that_nobody_works_at(place: Place) -> None:
    place.point()
    assert "queue_old" not in place.look(14 * MINUTE)
    assert place.look(16 * MINUTE)["queue_old"]["level"] == "yellow"
    assert place.look(76 * MINUTE)["queue_old"]["level"] == "red"
    place.tamper("UPDATE jobs SET state = 'done'")
    assert place.is_over("queue_old", 90 * MINUTE)


def test_a_circuit_that_is_open(place: Place) -> None:
    place.tamper(
        "INSERT INTO circuits (study_id, state, failures, opened_at) SELECT id, 'open', 7, %s FROM studies",
        place.start,
    )
    seen = place.look(SOON)["circuit_open"]
    assert (seen["level"], seen["detail"]["failures"]) == ("yellow", 7)
    assert place.look(61 * MINUTE)["circuit_open"]["level"] == "red"
    place.tamper("UPDATE circuits SET state = 'closed'")
    assert place.is_over("circuit_open", 70 * MINUTE)


def first(number: int) -> str:
    return f"(SELECT id FROM decisions ORDER BY id LIMIT {number})"


def test_fallbacks_of_more_than_two_in_a_hundred(place: Place) -> None:
    play(place.service, people=4, points=5)
    assert "fallbacks" not in place.look(SOON)
    place.tamper("UPDATE decisions SET fallback_level = 'F1' WHERE id = (SELECT min(id) FROM decisions)")
    assert place.look(SOON)["fallbacks"]["detail"] == {"decisions": 1, "of": 20, "share": 0.05}
    place.tamper(f"UPDATE decisions SET fallback_level = 'F1' WHERE id IN {first(3)}")
    assert place.look(SOON)["fallbacks"]["level"] == "red"
    place.tamper("UPDATE decisions SET fallback_level = 'F0'")
    assert place.is_over("fallbacks", SOON + CALM)


def test_probabilities_at_a_bound(place: Place) -> None:
    play(place.service, people=4, points=5)
    assert "at_bound" not in place.look(SOON)
    place.tamper(f"UPDATE decisions SET act_prob = 0.8 WHERE id IN {first(6)}")
    seen = place.look(SOON)["at_bound"]
    assert (seen["level"], seen["detail"]) == ("yellow", {"decisions": 6, "of": 20, "share": 0.3})
    place.tamper("UPDATE decisions SET act_prob = 0.5")
    assert place.is_over("at_bound", SOON + CALM)


COPIED = (
    *("study_id", "participant_id", "protocol_id", "protocol_hash", "code_version", "feature_version"),
    *("state", "fallback_level", "answers", "decision_time", "utc_offset_minutes", "act_gen_timestamp"),
)


def draw(place: Place, number: int, action: str, policy: str = "0", evening: str = "false") -> None:
    """Add decisions of probability 0.3, each with a seed that its action follows from.

    action, policy, evening: SQL of the draw's number n.
    """
    columns = ", ".join(COPIED)
    (first,) = place_rows(place, "SELECT coalesce(max(decision_index), 0) AS top FROM decisions")
    place.tamper(
        f"""INSERT INTO decisions ({columns}, decision_index, policy_id, evening, act_prob, action, seed)
        SELECT {columns}, {first["top"]} + n, {policy}, {evening}, 0.3, {action},
               CASE WHEN ({action}) = 1 THEN 0 ELSE 9007199254740991 END
        FROM (SELECT * FROM decisions ORDER BY id LIMIT 1) one, generate_series(1, {number}) n"""
    )


def place_rows(place: Place, statement: str) -> list[dict[str, Any]]:
    with cursor(place.database_url) as found:
        found.execute(statement)
        return [dict(row) for row in found.fetchall()]


FAIR = "(mod(n * 7, 10) < 3)::int"  # three of ten


@pytest.mark.parametrize(
    ("what", "wrong"),
    [
        ("overall", {"action": "mod(n, 2)"}),
        (
            "by policy",
            {"action": "(mod(n, 10) < CASE WHEN n <= 400 THEN 0 ELSE 6 END)::int", "policy": "n / 401"},
        ),
        (
            "by time of day",
            {
                "action": "(mod(n / 2, 10) < CASE WHEN mod(n, 2) = 1 THEN 0 ELSE 6 END)::int",
                "evening": "mod(n, 2) = 1",
            },
        ),
    ],
)
def test_draws_that_do_not_fit_their_probabilities(place: Place, what: str, wrong: dict[str, str]) -> None:
    place.point(ended=False)
    draw(place, 800, FAIR)
    assert "randomisation" not in place.look(SOON)
    draw(place, 800, **wrong)
    seen = place.look(SOON)["randomisation"]
    assert (seen["level"], seen["detail"]["mismatched"]) == ("red", 0), what
    assert seen["detail"]["decisions"] == 1601
    draw(place, 200, FAIR)
    assert "randomisation" in place.look(3 * MINUTE)  # what was found stays found
    acknowledge(place, seen["incident_id"])
    assert place.is_over("randomisation", 3 * MINUTE + CALM)
    draw(place, 800, **wrong)
    assert place.look(10 * MINUTE)["randomisation"]["incident_id"] > seen["incident_id"]


def acknowledge(place: Place, incident_id: int) -> None:
    answer = place.service.call("POST", f"/incidents/{incident_id}/acknowledge", caller="admin")
    assert answer.status_code == 200, answer.text


def test_a_draw_that_is_not_what_its_seed_says(place: Place) -> None:
    play(place.service, people=2, points=2)
    assert "randomisation" not in place.look(timedelta())  # too young to be read
    place.tamper("UPDATE decisions SET action = 1 - action WHERE id = (SELECT min(id) FROM decisions)")
    seen = place.look(SOON)["randomisation"]
    assert (seen["level"], seen["detail"]["mismatched"]) == ("red", 1)


def test_each_draw_is_read_once(place: Place) -> None:
    play(place.service, people=2, points=2)
    for _ in range(3):
        place.look(SOON)
    (found,) = place_rows(place, "SELECT decisions FROM randomisation_tests WHERE stream = 'all'")
    assert found["decisions"] == 4


def test_a_beat_that_is_silent_is_seen_by_the_workers(place: Place) -> None:
    transact(lambda session: heartbeats.touch(session, BEAT, place.start))
    assert not sentry.look(BEAT, place.start, place.start + SOON)
    assert sentry.look(BEAT, place.start, place.start + 4 * MINUTE)
    seen = place.look(4 * MINUTE)["beat_silent"]
    assert (seen["level"], seen["study_id"], seen["detail"]) == ("red", None, {"seconds": 240})
    transact(lambda session: heartbeats.touch(session, BEAT, place.start + 9 * MINUTE))
    assert place.is_over("beat_silent", 10 * MINUTE)


def test_workers_that_are_silent_are_seen_by_beat(place: Place) -> None:
    watch.run(place.start)
    assert not sentry.look(WORKERS, place.start, place.start + SOON)
    assert sentry.look(WORKERS, place.start, place.start + 4 * MINUTE)
    assert [one["kind"] for one in place.listed("?open=true&level=red")] == ["workers_silent"]
    assert place.is_over("workers_silent", 10 * MINUTE)  # a worker looked: they are back


def test_who_has_just_begun_to_watch_accuses_nobody(place: Place) -> None:
    transact(lambda session: heartbeats.touch(session, BEAT, place.start - 24 * HOUR))
    assert not sentry.look(BEAT, place.start, place.start + SOON)


def test_every_kind_is_provoked_here() -> None:
    told = {*OF_A_STUDY, *OF_THE_DEPLOYMENT}
    with open(__file__, encoding="utf-8") as file:  # noqa: PTH123
        text = file.read()
    assert [kind for kind in told if f'"{kind}"' not in text] == []
    assert set(conditions.CHECKS) == set(OF_A_STUDY)


def test_what_comes_and_goes_is_one_incident(place: Place) -> None:
    place.point()
    first = place.look(16 * MINUTE)["queue_old"]
    place.tamper("UPDATE jobs SET run_after = now() + interval '1 day'")
    between = place.look(17 * MINUTE)["queue_old"]
    assert (between["count"], between["last_at"]) == (1, first["last_at"])
    place.tamper("UPDATE jobs SET run_after = %s", place.start)
    again = place.look(18 * MINUTE)["queue_old"]
    assert (again["incident_id"], again["count"]) == (first["incident_id"], 2)
    assert again["first_at"] == first["first_at"]
    assert again["last_at"] > first["last_at"]


def test_what_comes_back_after_it_was_over_is_another_incident(place: Place) -> None:
    place.point()
    first = place.look(16 * MINUTE)["queue_old"]
    place.tamper("UPDATE jobs SET run_after = now() + interval '1 day'")
    assert place.is_over("queue_old", 30 * MINUTE)
    place.tamper("UPDATE jobs SET run_after = %s", place.start)
    assert place.look(40 * MINUTE)["queue_old"]["incident_id"] > first["incident_id"]


def test_a_check_that_fails_keeps_its_incident_and_stops_no_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.point()
    assert set(place.look(61 * MINUTE)) == {"queue_old", "window_not_ingested"}

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(watch, "CHECKS", {**conditions.CHECKS, incidents.QUEUE_OLD: broken})
    place.tamper("UPDATE windows SET state = 'ingested'")
    assert set(place.look(70 * MINUTE)) == {"queue_old"}


def test_two_watchdogs_at_once_write_one_incident(place: Place) -> None:
    place.point()
    at = place.start + 16 * MINUTE
    threads = [threading.Thread(target=watch.run, args=(at,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one["kind"] for one in place.listed()] == ["queue_old"]
    assert place.listed()[0]["count"] == 4


def test_studies_are_looked_at_one_by_one(place: Place) -> None:
    place.service.study("other")
    place.point()
    assert set(place.look(16 * MINUTE)) == {"queue_old"}
    theirs = place.service.call("GET", "/incidents", caller="researcher@other").get_json()
    assert theirs["incidents"] == []
    assert transact(lambda session: jobs.counts(session, 1)) == {"queued": 1}

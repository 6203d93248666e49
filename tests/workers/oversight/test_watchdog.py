"""Every kind of incident, provoked against a real database, and how each comes to its end."""

import threading
import time
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.resources import files
from pathlib import Path

import psycopg2
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from algorithm.core.backoff import LADDERS
from api.core.broker import lengths
from models.core import heartbeats, jobs
from models.core.heartbeats import BEAT, WORKERS
from models.core.session import transact
from models.oversight.incidents import CALM, Kind
from tests.support.study import begin
from tests.support.watched import Place
from tests.workers.trial.test_refit import play, run
from workers.core import sweep
from workers.oversight import conditions, sentry, watchdog
from workers.oversight.conditions import Check, Look
from workers.trial import refit

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SOON = 2 * MINUTE


def test_a_study_where_all_goes_well_has_no_incident(place: Place) -> None:
    place.point()
    place.study.tamper("UPDATE windows SET state = 'ingested'")
    place.study.tamper("UPDATE jobs SET state = 'done'")
    assert place.look(SOON) == {}
    assert place.look(23 * HOUR) == {}


@pytest.mark.provokes(Kind.NO_DECISION)
def test_no_decision_where_some_should_be(place: Place) -> None:
    assert place.look(23 * HOUR) == {}
    seen = place.look(25 * HOUR)["no_decision"]
    assert (seen["level"], seen["detail"]) == ("red", {"participants": 1, "hours": 24})
    place.point(ended=False)
    place.study.tamper("UPDATE decisions SET act_gen_timestamp = %s", place.start + 25 * HOUR)
    assert place.is_over("no_decision", 25 * HOUR + CALM)


@pytest.fixture
def new_zone(tmp_path: Path) -> Iterator[str]:
    """The name of a time zone that the database has not heard of."""
    (tmp_path / "Mars").mkdir()
    (tmp_path / "Mars" / "Olympus").write_bytes((files("tzdata") / "zoneinfo" / "UTC").read_bytes())
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([str(tmp_path), *before])
    yield "Mars/Olympus"
    zoneinfo.reset_tzpath(before)
    zoneinfo.ZoneInfo.clear_cache()


def test_a_zone_that_the_database_does_not_know_hides_no_silence(place: Place, new_zone: str) -> None:
    with pytest.raises(psycopg2.errors.InvalidParameterValue):
        place.study.rows(f"SELECT now() AT TIME ZONE '{new_zone}'")
    place.study.tamper("UPDATE participants SET timezone = %s", new_zone)
    assert "no_decision" in place.look(25 * HOUR)


def test_a_pause_is_no_silence(place: Place) -> None:
    place.study.call("POST", "/study/pause", {"reason": "a test"}, role="admin")
    assert "no_decision" not in place.look(25 * HOUR)
    place.study.call("POST", "/study/resume", {"reason": "a test"}, role="admin")
    assert "no_decision" not in place.look(23 * HOUR)
    assert "no_decision" in place.look(25 * HOUR)


@pytest.mark.provokes(Kind.WINDOW_NOT_ENDED)
def test_a_window_that_nobody_ends(place: Place) -> None:
    place.point(ended=False)
    hours = 1000 * HOUR  # beyond any protocol's window
    assert place.look(hours)["window_not_ended"]["level"] == "red"
    place.study.end("ann")
    assert place.is_over("window_not_ended", hours + CALM)


def test_a_window_that_the_service_ended_itself(place: Place) -> None:
    for index in (1, 2):
        place.study.decide("ann", decision_index=index)
    seen = place.look(SOON)["window_not_ended"]
    assert (seen["level"], seen["detail"]) == ("yellow", {"open": 0, "closed_for_the_app": 1})
    place.study.end("ann")
    assert place.is_over("window_not_ended", 25 * HOUR)


@pytest.mark.provokes(Kind.WINDOW_NOT_INGESTED)
def test_a_window_that_is_not_ingested(place: Place) -> None:
    place.point()
    assert "window_not_ingested" not in place.look(59 * MINUTE)
    assert place.look(61 * MINUTE)["window_not_ingested"]["level"] == "yellow"
    assert place.look(301 * MINUTE)["window_not_ingested"]["level"] == "red"
    place.study.tamper("UPDATE windows SET state = 'failed'")
    seen = place.look(302 * MINUTE)["window_not_ingested"]
    assert (seen["level"], seen["detail"]["failed"]) == ("yellow", 1)
    assert place.look(1000 * HOUR)["window_not_ingested"]["incident_id"] == seen["incident_id"]
    place.study.tamper("UPDATE windows SET state = 'ingested'")
    assert place.is_over("window_not_ingested", 1001 * HOUR)


@pytest.mark.provokes(Kind.WINDOW_NOT_INGESTED)
def test_acknowledged_windows_count_no_more_and_those_that_end_and_fail_later_open_another(
    place: Place,
) -> None:
    place.point()
    place.study.tamper("UPDATE windows SET state = 'failed'")
    first = place.look(SOON)["window_not_ingested"]
    place.acknowledge(first["incident_id"])
    place.point()
    place.study.tamper("UPDATE windows SET state = 'failed'")
    assert place.look(3 * MINUTE)["window_not_ingested"]["count"] == 1  # it does not go on with those
    assert place.is_over("window_not_ingested", SOON + CALM)
    assert ("window_not_ingested", "resolved") not in place.told()  # the first one failed all the same
    another = place.look(SOON + CALM + MINUTE)["window_not_ingested"]
    assert another["incident_id"] > first["incident_id"]
    assert another["detail"]["failed"] == 1


@pytest.mark.provokes(Kind.REFIT_LATE)
def test_a_refit_that_is_late(place: Place) -> None:
    place.point()
    place.point()
    assert "refit_late" not in place.look(25 * HOUR)
    assert place.look(27 * HOUR)["refit_late"]["level"] == "yellow"
    assert place.look(53 * HOUR)["refit_late"]["level"] == "red"
    assert run(place.study)["state"] == "done"
    assert place.is_over("refit_late", 54 * HOUR)


@pytest.mark.provokes(Kind.REFIT_LATE)
def test_a_refit_whose_worker_dies_each_time_is_late_although_the_next_one_goes_on_with_it(
    place: Place,
) -> None:
    place.point()
    place.point()
    ask = partial(place.study.call, "POST", "/update_parameters")
    for _ in range(3):
        job_id = ask().get_json()["job_id"]
        assert transact(partial(jobs.claim, job_id=job_id, now=datetime.now(UTC)))
        assert ask().get_json()["job_id"] > job_id
        sweep.sweep()
        (job,) = place.study.rows(f"SELECT state, result FROM jobs WHERE id = {job_id}")
        assert (job["state"], list(job["result"])) == ("done", ["continued_by"])
    assert place.look(27 * HOUR)["refit_late"]["level"] == "yellow"
    assert run(place.study)["state"] == "done"
    assert place.is_over("refit_late", 28 * HOUR)


@pytest.mark.provokes(Kind.REFIT_WITHOUT_ROWS)
def test_refits_without_new_rows(place: Place) -> None:
    place.point()
    place.point()
    job_id = place.study.call("POST", "/update_parameters").get_json()["job_id"]
    later = place.start + 5 * MINUTE
    place.study.tamper("UPDATE jobs SET state = 'done', claimed_at = %s WHERE id = %s", later, job_id)
    seen = place.look(6 * MINUTE)["refit_without_rows"]
    assert (seen["level"], seen["detail"]) == ("yellow", {"decisions": 1})
    place.study.tamper("UPDATE jobs SET state = 'queued', claimed_at = NULL WHERE id = %s", job_id)
    refit.run(job_id)
    assert place.is_over("refit_without_rows", 12 * MINUTE)


@pytest.mark.provokes(Kind.QUEUE_OLD)
def test_a_queue_that_nobody_works_at(place: Place) -> None:
    place.point()
    assert "queue_old" not in place.look(14 * MINUTE)
    assert place.look(16 * MINUTE)["queue_old"]["level"] == "yellow"
    assert place.look(76 * MINUTE)["queue_old"]["level"] == "red"
    place.study.tamper("UPDATE jobs SET state = 'done'")
    assert place.is_over("queue_old", 90 * MINUTE)


def open_circuit(place: Place) -> None:
    place.study.tamper(
        "INSERT INTO circuits (study_id, state, failures, opened_at) SELECT id, 'open', 7, %s FROM studies",
        place.start,
    )


@pytest.mark.provokes(Kind.CIRCUIT_OPEN)
def test_a_circuit_that_is_open(place: Place) -> None:
    place.point()
    open_circuit(place)
    seen = place.look(SOON)["circuit_open"]
    assert (seen["level"], seen["detail"]["failures"]) == ("yellow", 7)
    assert place.look(61 * MINUTE)["circuit_open"]["level"] == "red"
    place.study.tamper("UPDATE circuits SET state = 'closed'")
    assert place.is_over("circuit_open", 70 * MINUTE)


FAIL = "UPDATE jobs SET state = 'failed', code = 320, tries = %s, finished_at = %s, run_after = %s"


@pytest.mark.provokes(Kind.CIRCUIT_OPEN)
def test_a_circuit_is_over_when_nobody_will_ask_any_more(place: Place) -> None:
    place.point()
    open_circuit(place)
    past = place.start - 6 * HOUR
    place.study.tamper(FAIL, LADDERS["back end, slowly"].tries - 1, past, place.start)
    assert place.look(2 * HOUR)["circuit_open"]["level"] == "red"  # it sleeps, and asks once more
    sweep.sweep()
    assert [job["state"] for job in place.study.rows("SELECT state FROM jobs")] == ["queued"]
    assert "circuit_open" in place.look(3 * HOUR)
    place.study.tamper(FAIL, LADDERS["back end, slowly"].tries, past, place.start)
    sweep.sweep()
    assert [job["state"] for job in place.study.rows("SELECT state FROM jobs")] == ["failed"]
    assert place.is_over("circuit_open", 4 * HOUR)
    assert [one["state"] for one in place.study.rows("SELECT state FROM circuits")] == ["open"]
    place.point()
    assert place.look(5 * HOUR)["circuit_open"]["level"] == "red"  # the next one waits again


def first(number: int) -> str:
    return f"(SELECT id FROM decisions ORDER BY id LIMIT {number})"


@pytest.mark.provokes(Kind.FALLBACKS)
def test_fallbacks_of_more_than_two_in_a_hundred(place: Place) -> None:
    play(place.study, people=4, points=5)
    assert "fallbacks" not in place.look(SOON)
    place.study.tamper(f"UPDATE decisions SET fallback_level = 'F1' WHERE id IN {first(1)}")
    assert place.look(SOON)["fallbacks"]["detail"] == {"decisions": 1, "of": 20, "share": 0.05}
    place.study.tamper(f"UPDATE decisions SET fallback_level = 'F1' WHERE id IN {first(3)}")
    assert place.look(SOON)["fallbacks"]["level"] == "red"
    place.study.tamper("UPDATE decisions SET fallback_level = 'F0'")
    assert place.is_over("fallbacks", SOON + CALM)


@pytest.mark.provokes(Kind.FALLBACKS)
def test_in_a_small_trial_one_fallback_is_too_many_for_a_day_and_two_are_red(place: Place) -> None:
    play(place.study, people=2, points=3)
    place.study.tamper(f"UPDATE decisions SET fallback_level = 'F1' WHERE id IN {first(1)}")
    seen = place.look(SOON)["fallbacks"]
    assert (seen["level"], seen["detail"]) == ("yellow", {"decisions": 1, "of": 6, "share": 0.1667})
    place.study.tamper(f"UPDATE decisions SET fallback_level = 'F1' WHERE id IN {first(2)}")
    assert place.look(SOON)["fallbacks"]["level"] == "red"
    assert "fallbacks" in place.look(23 * HOUR)
    assert place.is_over("fallbacks", 25 * HOUR)


@pytest.mark.provokes(Kind.AT_BOUND)
def test_probabilities_at_a_bound(place: Place) -> None:
    play(place.study, people=4, points=5)
    assert "at_bound" not in place.look(SOON)
    place.study.tamper(f"UPDATE decisions SET act_prob = 0.8 WHERE id IN {first(6)}")
    seen = place.look(SOON)["at_bound"]
    assert (seen["level"], seen["detail"]) == ("yellow", {"decisions": 6, "of": 20, "share": 0.3})
    place.study.tamper("UPDATE decisions SET act_prob = 0.5")
    assert place.is_over("at_bound", SOON + CALM)


def test_few_probabilities_say_nothing_of_the_bounds(place: Place) -> None:
    play(place.study, people=2, points=3)
    place.study.tamper("UPDATE decisions SET act_prob = 0.8")
    assert "at_bound" not in place.look(SOON)


@pytest.mark.provokes(Kind.BEAT_SILENT)
def test_a_beat_that_is_silent_is_seen_by_the_workers(place: Place) -> None:
    transact(lambda session: heartbeats.touch(session, BEAT, place.start))
    assert not sentry.look(BEAT, place.start, place.start + SOON)
    assert sentry.look(BEAT, place.start, place.start + 4 * MINUTE)
    seen = place.look(4 * MINUTE)["beat_silent"]
    assert (seen["level"], seen["study_id"], seen["detail"]) == ("red", None, {"seconds": 240})
    transact(lambda session: heartbeats.touch(session, BEAT, place.start + 9 * MINUTE))
    assert place.is_over("beat_silent", 10 * MINUTE)


@pytest.mark.provokes(Kind.WORKERS_SILENT)
def test_workers_that_are_silent_are_seen_by_beat(place: Place) -> None:
    watchdog.run(place.start)
    assert not sentry.look(WORKERS, place.start, place.start + SOON)
    assert sentry.look(WORKERS, place.start, place.start + 4 * MINUTE)
    assert [one["kind"] for one in place.listed("?open=true&level=red")] == ["workers_silent"]
    assert place.is_over("workers_silent", 10 * MINUTE)  # a worker looked: they are back


def test_who_has_just_begun_to_watch_accuses_nobody(place: Place) -> None:
    transact(lambda session: heartbeats.touch(session, BEAT, place.start - 24 * HOUR))
    assert not sentry.look(BEAT, place.start, place.start + SOON)


def test_what_comes_and_goes_is_one_incident(place: Place) -> None:
    place.point()
    first = place.look(16 * MINUTE)["queue_old"]
    place.study.tamper("UPDATE jobs SET run_after = now() + interval '1 day'")
    between = place.look(17 * MINUTE)["queue_old"]
    assert (between["count"], between["last_at"]) == (1, first["last_at"])
    place.study.tamper("UPDATE jobs SET run_after = %s", place.start)
    again = place.look(18 * MINUTE)["queue_old"]
    assert (again["incident_id"], again["count"]) == (first["incident_id"], 2)
    assert again["first_at"] == first["first_at"]
    assert again["last_at"] > first["last_at"]


def test_what_comes_back_after_it_was_over_is_another_incident(place: Place) -> None:
    place.point()
    first = place.look(16 * MINUTE)["queue_old"]
    place.study.tamper("UPDATE jobs SET run_after = now() + interval '1 day'")
    assert place.is_over("queue_old", 30 * MINUTE)
    place.study.tamper("UPDATE jobs SET run_after = %s", place.start)
    assert place.look(40 * MINUTE)["queue_old"]["incident_id"] > first["incident_id"]


def test_a_check_that_fails_keeps_its_incident_and_stops_no_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.point()
    assert set(place.look(61 * MINUTE)) == {"queue_old", "window_not_ingested"}

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(watchdog, "CHECKS", {**conditions.CHECKS, Kind.QUEUE_OLD: broken})
    place.study.tamper("UPDATE windows SET state = 'ingested'")
    assert set(place.look(70 * MINUTE)) == {"queue_old"}


def too_slow(session: Session, look: Look) -> None:
    """In the first study."""
    if look.study.id == 1:
        session.execute(text("SET LOCAL statement_timeout = '50ms'"))
        session.execute(text("SELECT pg_sleep(5)"))


def has_an_old_queue(place: Place, study_id: int) -> None:
    """Nobody takes a job of the study."""
    place.study.tamper(
        "INSERT INTO jobs (study_id, kind, run_after, sent_at) VALUES (%s, 'night', %s, now())",
        *(study_id, place.start),
    )


def of_studies(place: Place) -> list[tuple[int, str]]:
    """The incidents as (study, kind)."""
    found = place.study.rows("SELECT study_id, kind FROM incidents ORDER BY study_id, kind")
    return [(one["study_id"], one["kind"]) for one in found]


def test_a_check_that_takes_too_long_blinds_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(place.study.service)
    for study_id in (1, 2):
        has_an_old_queue(place, study_id)
    checks = {Kind.NO_DECISION: too_slow, **conditions.CHECKS, Kind.AT_BOUND: too_slow}
    monkeypatch.setattr(watchdog, "CHECKS", checks)
    before = lengths() or {}
    watchdog.run(place.start + 16 * MINUTE)
    assert of_studies(place) == [(1, "queue_old"), (2, "queue_old")]
    assert (lengths() or {})["upkeep"] == before["upkeep"] + 2  # each is told


def test_a_study_that_cannot_be_read_hides_no_other_one(place: Place) -> None:
    begin(place.study.service)
    has_an_old_queue(place, 2)
    place.study.tamper("UPDATE protocols SET document = '{}' WHERE study_id = 1")
    watchdog.run(place.start + 16 * MINUTE)
    assert of_studies(place) == [(2, "queue_old")]


def away(session: Session, _look: Look) -> None:
    session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


def over(_session: Session, _look: Look) -> None:
    raise SoftTimeLimitExceeded


@pytest.mark.parametrize(("met", "error"), [(away, OperationalError), (over, SoftTimeLimitExceeded)])
def test_a_database_that_is_away_and_a_time_that_is_over_end_the_look_and_what_is_due_is_sent(
    place: Place, monkeypatch: pytest.MonkeyPatch, met: Check, error: type[Exception]
) -> None:
    has_an_old_queue(place, 1)
    assert set(place.look(16 * MINUTE)) == {"queue_old"}
    before = lengths() or {}
    looked_at: list[int] = []
    monkeypatch.setattr(
        watchdog,
        "CHECKS",
        {Kind.NO_DECISION: met, Kind.QUEUE_OLD: lambda _, look: looked_at.append(look.study.id)},
    )
    with pytest.raises(error):
        watchdog.run(place.start + 17 * MINUTE)
    assert looked_at == []
    assert (lengths() or {})["upkeep"] == before["upkeep"] + 1


def test_two_watchdogs_at_once_write_one_incident(place: Place) -> None:
    place.point()
    at = place.start + 16 * MINUTE
    threads = [threading.Thread(target=watchdog.run, args=(at,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one["kind"] for one in place.listed()] == ["queue_old"]
    assert place.listed()[0]["count"] == 4


def test_studies_are_looked_at_one_by_one(place: Place) -> None:
    other = begin(place.study.service)
    place.point()
    assert set(place.look(16 * MINUTE)) == {"queue_old"}
    theirs = other.call("GET", "/incidents", role="researcher").get_json()
    assert theirs["incidents"] == []
    assert transact(lambda session: jobs.counts(session, 1)) == {"queued": 1}


def test_a_look_that_takes_its_time_is_no_standstill(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry, "_longest_gap", lambda: timedelta(seconds=2))
    monkeypatch.setattr(sentry, "look", lambda *_: time.sleep(3))
    began = datetime.now(UTC)
    looked, since = sentry._look_again(BEAT, began, began)
    assert sentry._look_again(BEAT, looked, since)[1] == began

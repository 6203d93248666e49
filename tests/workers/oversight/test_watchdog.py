"""Every kind of incident, provoked against a real database, and how each comes to its end."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api.core.broker import lengths
from models.core import heartbeats, jobs
from models.core.heartbeats import BEAT, WORKERS
from models.core.session import transact
from models.oversight.incidents import Kind
from tests.support.study import begin
from tests.support.watched import Place
from workers.oversight import conditions, sentry, watchdog
from workers.oversight.conditions import Check, Look

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SOON = 2 * MINUTE


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
    monkeypatch.setattr(sentry, "longest_gap", lambda: timedelta(seconds=2))
    monkeypatch.setattr(sentry, "look", lambda *_: time.sleep(3))
    began = datetime.now(UTC)
    looked, since = sentry.look_again(BEAT, began, began)
    assert sentry.look_again(BEAT, looked, since)[1] == began

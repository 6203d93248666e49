"""Every kind of incident, provoked against a real database, and how each comes to its end."""

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path

import psycopg2
import pytest

from algorithm.core.backoff import LADDERS
from models.core import jobs
from models.core.session import transact
from models.oversight.incidents import CALM, Kind
from tests.support.watched import Place
from tests.workers.oversight.test_watchdog import HOUR, MINUTE, SOON
from tests.workers.trial.test_refit import play, run
from workers.core import sweep
from workers.trial import refit


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

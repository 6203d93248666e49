"""What happens when the work of a claimed job goes wrong."""

from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import OperationalError

from models import jobs
from models.jobs import Job, LostClaim
from models.session import transact
from tests.service import Service
from workers.claims import OWN_FAULT, guarded


def claimed(service: Service) -> Job:
    """The ingest job of an ended window, claimed."""
    service.enrol("ann")
    service.decide("ann")
    job_id = service.end("ann").get_json()["job_id"]
    job = transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC)))
    assert job is not None
    return job


def shown(service: Service) -> tuple[str, int | None]:
    """State and code of the window."""
    window = service.call("GET", "/windows", caller="researcher").get_json()["windows"][0]
    return window["state"], window["code"]


def test_an_unforeseen_error_fails_the_job_and_shows_the_window_as_failed(service: Service) -> None:
    job = claimed(service)

    def broken() -> None:
        raise ZeroDivisionError

    guarded(job, broken)
    seen = service.call("GET", f"/jobs/{job.id}").get_json()["job"]
    assert (seen["state"], seen["code"]) == ("failed", OWN_FAULT)
    assert "ZeroDivisionError" in seen["reason"]
    assert shown(service) == ("failed", OWN_FAULT)


def test_a_database_that_is_away_leaves_the_claim_for_the_sweep(service: Service) -> None:
    job = claimed(service)

    def away() -> None:
        raise OperationalError("", {}, Exception())

    with pytest.raises(OperationalError):
        guarded(job, away)
    assert service.call("GET", f"/jobs/{job.id}").get_json()["job"]["state"] == "running"


def test_who_lost_the_claim_writes_nothing(service: Service) -> None:
    job = claimed(service)
    moved_on = transact(lambda session: jobs.of_study(session, job.study_id, job.id))
    assert moved_on is not None
    job.attempts -= 1  # as a worker sees it whose job was put back and claimed again

    def finish() -> None:
        transact(lambda session: jobs.finish(session, job, datetime.now(UTC)))

    with pytest.raises(LostClaim):
        finish()
    guarded(job, finish)
    assert service.call("GET", f"/jobs/{job.id}").get_json()["job"]["state"] == "running"

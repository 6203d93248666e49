"""The night by each study's own calendar."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from algorithm.core.checks import ProtocolError
from models.core import jobs, studies
from models.core.jobs import Job, QueuedJob
from models.core.session import transact
from models.oversight.incidents import Kind
from services.trial import protocols
from settings import settings
from tests.support.service import Service
from tests.support.study import begin, tamper
from tests.support.watched import Place
from tests.workers.trial.test_refit import play
from tests.workers.trial.test_refit import run as fit
from workers.core import sweep
from workers.oversight import night


def asked(now: datetime) -> list[QueuedJob]:
    return transact(night.queue, 1, now)


def made_on(day: date) -> None:
    """Let the study have been made on this day."""

    def work(session: Session) -> None:
        studies.by_id(session, 1).nightly_on = day

    transact(work)


def finish() -> bool:
    """Have the queued refit done; whether it was to fit hyper-parameters."""

    def work(session: Session) -> bool:
        queued = jobs.queued_refit(session, 1)
        assert queued is not None
        queued.state = jobs.DONE
        return queued.hyperparameters

    return transact(work)


@pytest.fixture
def new_york(service: Service) -> Service:
    """A study of that zone, whose night comes at two and whose week ends on Monday."""
    made = ("study", "create", "trial", "--ema-url", "http://127.0.0.1:9/", "--timezone", "America/New_York")
    service.command(*made)
    return service


@pytest.mark.usefixtures("new_york")
def test_each_night_asks_once_over_a_year_of_local_nights() -> None:
    zone = ZoneInfo("America/New_York")
    now = datetime(2026, 1, 1, 6, 30, tzinfo=UTC)
    made_on(date(2025, 12, 31))
    assert asked(now) == []  # it has nothing to learn from yet
    nights, weekly = [], []
    while now < datetime(2027, 1, 1, tzinfo=UTC):
        now += timedelta(minutes=30)
        if asked(now):
            local = now.astimezone(zone)
            nights.append(local)
            if finish():
                weekly.append(local.date())
    days = {local.date() for local in nights}
    assert len(nights) == len(days) == 365
    assert {local.hour for local in nights} == {2, 3}  # three where the clock leaps over two
    assert [local.date() for local in nights if local.hour == 3] == [date(2026, 3, 8)]
    assert weekly == [day for day in sorted(days) if day.weekday() == 0]


@pytest.mark.usefixtures("new_york")
def test_an_outage_is_made_up_for_once_with_the_week_that_it_swallowed() -> None:
    start = datetime(2026, 6, 4, 12, 0, tzinfo=UTC)  # a Thursday
    made_on(start.date())
    assert asked(start) == []
    assert asked(start + timedelta(days=6))  # a Monday lies between
    assert finish()
    assert asked(start + timedelta(days=6, hours=1)) == []
    assert asked(start + timedelta(days=7))
    assert not finish()


@pytest.mark.usefixtures("new_york")
def test_a_beat_that_is_away_when_a_study_is_made_makes_up_for_its_first_nights() -> None:
    assert asked(datetime.now(UTC) + timedelta(days=3))


@pytest.mark.usefixtures("new_york")
def test_beats_that_ask_at_once_are_answered_once() -> None:
    start = datetime(2026, 6, 4, 12, 0, tzinfo=UTC)
    made_on(start.date())
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: asked(start + timedelta(days=1)), range(8)))
    assert sum(bool(jobs) for jobs in told) == 1


SHIFTS = [
    ("America/New_York", 1, "2026-11-01T05:00"),  # one o'clock comes twice
    ("America/New_York", 2, "2026-11-01T07:00"),
    ("America/New_York", 1, "2026-03-08T06:00"),
    ("America/New_York", 2, "2026-03-08T07:00"),  # there is no two o'clock
    ("Europe/Berlin", 2, "2026-10-25T00:00"),  # two o'clock comes twice
    ("Europe/Berlin", 2, "2026-03-29T01:00"),
    ("Australia/Lord_Howe", 1, "2026-04-04T14:00"),  # half past one comes twice
    ("Australia/Lord_Howe", 2, "2026-04-04T15:30"),
    ("Australia/Lord_Howe", 1, "2026-10-03T14:30"),
    ("Australia/Lord_Howe", 2, "2026-10-03T15:30"),  # two o'clock is half past two
]


@pytest.mark.parametrize(("zone", "hour", "utc"), SHIFTS)
def test_a_night_in_which_the_clocks_change_comes_once_and_in_time(
    service: Service, zone: str, hour: int, utc: str
) -> None:
    made = ("study", "create", "trial", "--ema-url", "http://127.0.0.1:9/", "--timezone", zone)
    service.command(*made, "--set", f"refit.nightly_hour={hour}")
    expected = datetime.fromisoformat(f"{utc}+00:00")
    made_on((expected - timedelta(hours=36 + hour)).astimezone(ZoneInfo(zone)).date())
    nights = []
    for step in range(-36 * 6, 36 * 6):
        now = expected + timedelta(minutes=10 * step)
        if asked(now):
            nights.append(now)
            finish()
    before, that_one, after = nights
    assert that_one == expected
    assert {now.astimezone(ZoneInfo(zone)).hour for now in (before, after)} == {hour}


def back_in_time(session: Session) -> None:
    """The night of every study has come."""
    for study in studies.everyone(session):
        study.nightly_on = datetime.now(UTC).date() - timedelta(days=2)


@pytest.fixture
def two_studies(service: Service) -> None:
    begin(service)
    begin(service)
    night.begin()
    assert queued(1) == queued(2) == []
    transact(back_in_time)


def queued(study_id: int) -> list[str]:
    """The kinds of the study's jobs."""
    query = select(Job.kind).where(Job.study_id == study_id, Job.state == jobs.QUEUED).order_by(Job.kind)
    return transact(lambda session: list(session.scalars(query)))


@pytest.mark.usefixtures("two_studies")
def test_the_task_sees_to_every_study() -> None:
    for _ in range(2):
        night.begin()
    assert queued(1) == queued(2) == [jobs.NIGHT, jobs.REFIT]


@pytest.mark.usefixtures("two_studies")
def test_a_study_in_which_the_night_cannot_begin_keeps_no_other_from_it() -> None:
    tamper(settings().database_url, "UPDATE protocols SET document = '{}' WHERE study_id = 1")
    protocols._loaded.clear()  # as in a process that has not read them yet
    with pytest.raises(ProtocolError, match="protocol: None is unknown"):
        night.begin()
    assert (queued(1), queued(2)) == ([], [jobs.NIGHT, jobs.REFIT])


def begun() -> int:
    """The job of the checks of study 1, whose night has just come."""
    transact(back_in_time)
    night.begin()
    query = select(Job.id).where(Job.study_id == 1, Job.kind == jobs.NIGHT, Job.state == jobs.QUEUED)
    return transact(lambda session: session.scalars(query).one())


@pytest.mark.provokes(Kind.STATISTICS_DIFFER)
def test_a_night_whose_worker_is_killed_is_gone_through_by_another_one(place: Place) -> None:
    play(place.study, people=2, points=3)
    fit(place.study)
    place.study.tamper("UPDATE statistics SET c = c + 1e-12 WHERE participant_id = 2")
    job_id = begun()
    assert transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC))) is not None
    sweep.sweep()  # nobody holds its lock
    night.run(job_id)
    assert set(place.open()) == {Kind.STATISTICS_DIFFER}
    assert place.study.job(job_id)["state"] == "done"


@pytest.mark.provokes(Kind.AUDIT_BROKEN)
def test_a_check_that_fails_keeps_none_of_the_others_from_its_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.study.tamper("UPDATE audit SET reason = 'x' || reason WHERE seq = 2")
    job_id = begun()
    monkeypatch.setitem(night.CHECKS, "statistics", lambda _study, _now: 1 / 0)
    night.run(job_id)
    assert set(place.open()) == {Kind.AUDIT_BROKEN}
    job = place.study.job(job_id)
    assert (job["state"], job["reason"]) == ("failed", "the service failed: ZeroDivisionError")


def test_the_audits_head_is_told_once_a_night(place: Place) -> None:
    begun()
    night.begin()
    place.told()
    assert [json.loads(body)["kind"] for _, body in place.receiver.got] == ["audit_head"]

"""The night by each study's own calendar."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy.orm import Session

from models import jobs, studies
from models.refits import Requested
from models.session import transact
from tests.service import Service
from workers import upkeep
from workers.upkeep import _nightly


def asked(now: datetime) -> Requested | None:
    return transact(partial(_nightly, 1, now))


def finish() -> bool:
    """Have the queued refit done; whether it was to fit hyper-parameters."""

    def work(session: Session) -> bool:
        queued = jobs.queued_refit(session, 1)
        assert queued is not None
        queued.state = jobs.DONE
        return queued.hyperparameters

    return transact(work)


@pytest.fixture
def new_york(bare_service: Service) -> Service:
    """A study of that zone, whose night comes at two and whose week ends on Monday."""
    made = ("study", "create", "trial", "--ema-url", "http://127.0.0.1:9/", "--timezone", "America/New_York")
    bare_service.command(*made)
    return bare_service


@pytest.mark.usefixtures("new_york")
def test_each_night_asks_once_over_a_year_of_local_nights() -> None:
    zone = ZoneInfo("America/New_York")
    now = datetime(2026, 1, 1, 6, 30, tzinfo=UTC)
    assert asked(now) is None  # a new study
    nights, weekly = [], []
    while now < datetime(2027, 1, 1, tzinfo=UTC):
        now += timedelta(minutes=30)
        if asked(now) is not None:
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
    assert asked(start) is None
    assert asked(start + timedelta(days=6)) is not None  # a Monday lies between
    assert finish()
    assert asked(start + timedelta(days=6, hours=1)) is None
    assert asked(start + timedelta(days=7)) is not None
    assert not finish()


@pytest.mark.usefixtures("new_york")
def test_beats_that_ask_at_once_are_answered_once() -> None:
    start = datetime(2026, 6, 4, 12, 0, tzinfo=UTC)
    asked(start)
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: asked(start + timedelta(days=1)), range(8)))
    assert sum(one is not None for one in told) == 1


def test_the_task_sees_to_every_study(bare_service: Service) -> None:
    bare_service.study("one")
    bare_service.study("two")
    upkeep.nightly()
    yesterday = datetime.now(UTC).date() - timedelta(days=2)

    def back_in_time(session: Session) -> None:
        for study in studies.everyone(session):
            study.nightly_on = yesterday

    transact(back_in_time)
    for _ in range(2):
        upkeep.nightly()
    state = bare_service.call("GET", "/study", caller="researcher").get_json()
    assert state["jobs"]["queued"] == 1

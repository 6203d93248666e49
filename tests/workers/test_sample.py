"""The nightly replay of recent decisions, straight from the database."""

from datetime import UTC, datetime, timedelta

import pytest

from models import studies
from models.session import transact
from replay.report import Divergence, Report
from settings import settings
from tests.api.trial import cursor
from tests.service import Service
from tests.workers.test_refit import play
from tests.workers.test_refit import run as fit
from workers import sample


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> list[Divergence]:
    """What was raised."""
    found: list[Divergence] = []
    monkeypatch.setattr(sample, "raise_incident", lambda _study, divergence, _count: found.append(divergence))
    return found


def replayed() -> Report:
    study = transact(lambda session: studies.everyone(session)[0])
    return sample.replay(study, datetime.now(UTC) - timedelta(hours=1))


def tamper(statement: str) -> None:
    with cursor(settings().database_url) as found:
        found.execute(statement)
        assert found.rowcount == 1


def test_an_honest_day_raises_nothing(service: Service, raised: list[Divergence]) -> None:
    play(service, people=3, points=3)
    fit(service)
    service.decide("p0", decision_index=4)
    sample.run()
    assert raised == []
    report = replayed()
    assert (report.held["action"], report.held["seed"], report.held["learning row"]) == (10, 10, 12)


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        (
            "UPDATE decisions SET act_prob = act_prob + 1e-6 WHERE id = (SELECT max(id) FROM decisions)",
            "probability",
        ),
        ("UPDATE decisions SET seed = seed + 1 WHERE id = (SELECT max(id) FROM decisions)", "seed"),
        (
            "UPDATE decisions SET answers = answers || '{\"app_use_flag\": true}' "
            "WHERE id = (SELECT min(id) FROM decisions)",
            "reward",
        ),
        ("UPDATE learning_rows SET outcome = outcome + 1 WHERE row_seq = 1", "learning row"),
        ('UPDATE protocols SET document = document || \'{"algorithm": "pooled"}\'', "protocol"),
    ],
)
def test_a_row_changed_behind_the_services_back_is_raised(
    service: Service, raised: list[Divergence], statement: str, kind: str
) -> None:
    play(service, people=2, points=3)
    fit(service)
    tamper(statement)
    sample.run()
    assert kind in {divergence.kind for divergence in raised}


def test_no_sample_where_none_is_wanted(
    service: Service, raised: list[Divergence], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAIROS_REPLAY_SAMPLE", "0")
    settings.cache_clear()
    play(service, people=1, points=1)
    assert replayed().held["action"] == 0
    assert raised == []

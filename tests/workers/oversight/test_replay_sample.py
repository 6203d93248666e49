"""The nightly replay of recent decisions, straight from the database."""

from datetime import UTC, datetime

import pytest

from models.core import studies
from models.core.session import transact
from replay.findings import Report
from settings import settings
from tests.support.study import Study, cursor
from tests.workers.trial.test_refit import play
from tests.workers.trial.test_refit import run as fit
from workers.oversight import replay_sample


def replayed() -> Report:
    study = transact(lambda session: studies.everyone(session)[0])
    return replay_sample.replay(study, datetime.now(UTC))


def tamper(statement: str) -> None:
    with cursor(settings().database_url) as found:
        found.execute(statement)
        assert found.rowcount == 1


def test_an_honest_day_holds(only_study: Study) -> None:
    play(only_study, people=3, points=3)
    fit(only_study)
    only_study.decide("p0", decision_index=4)
    report = replayed()
    assert report.first == {}
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
        ("UPDATE decisions SET answers = '[1]' WHERE id = (SELECT max(id) FROM decisions)", "reference"),
        ('UPDATE protocols SET document = document || \'{"algorithm": "pooled"}\'', "protocol"),
    ],
)
def test_a_row_changed_behind_the_services_back_diverges(
    only_study: Study, statement: str, kind: str
) -> None:
    play(only_study, people=2, points=3)
    fit(only_study)
    tamper(statement)
    assert kind in replayed().first


def test_no_sample_where_none_is_wanted(only_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAIROS_REPLAY_SAMPLE", "0")
    settings.cache_clear()
    play(only_study, people=1, points=1)
    report = replayed()
    assert (report.held["action"], report.first) == (0, {})

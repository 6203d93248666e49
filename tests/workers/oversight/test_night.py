"""What the checks of the night find is told as an incident, and is over when the next night's are clean."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from models.core import jobs, studies
from models.core.session import transact
from models.core.studies import Study
from models.oversight.incidents import Kind
from settings import settings
from tests.support.watched import Place
from tests.workers.trial.test_refit import play
from tests.workers.trial.test_refit import run as fit
from workers.oversight import audit, night, replay_sample, statistics_check


def found(place: Place, kind: Kind) -> tuple[str, dict[str, float]]:
    """Level and numbers of the one open incident."""
    (incident,) = place.open().values()
    assert incident["kind"] == kind
    return incident["level"], incident["detail"]


def next_night(place: Place, check: Callable[[], None]) -> None:
    """Everything there is becomes a day older, but the decisions; then the check runs again."""
    place.study.tamper("UPDATE incidents SET last_at = last_at - interval '1 day'")
    check()


def compare() -> None:
    statistics_check.compare(transact(studies.by_id, 1), datetime.now(UTC))


def verify() -> None:
    audit.verify(the_study(), datetime.now(UTC))


def replay() -> None:
    replay_sample.replay(the_study(), datetime.now(UTC))


def the_study() -> Study:
    return transact(partial(studies.by_id, study_id=1))


def test_a_night_that_takes_too_long_ends_at_its_limit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery kills a worker that goes on after the warning, and its job would begin anew and again."""
    done: list[str] = []

    def too_long(_study: Study, _now: datetime) -> None:
        raise SoftTimeLimitExceeded

    checks = {"first": too_long, "second": lambda _study, _now: done.append("second")}
    monkeypatch.setattr(night, "CHECKS", checks)
    job_id = transact(lambda session: jobs.add_night(session, 1, datetime.now(UTC)).id)
    night.run(job_id)
    (job,) = place.study.rows(f"SELECT state, tries FROM jobs WHERE id = {job_id}")
    assert (job["state"], done) == ("failed", [])


@pytest.mark.provokes(Kind.AUDIT_BROKEN)
def test_an_altered_audit(place: Place) -> None:
    verify()
    assert place.open() == {}
    place.study.tamper("UPDATE audit SET reason = 'x' || reason WHERE seq = 2")
    verify()
    assert found(place, Kind.AUDIT_BROKEN) == ("red", {"faults": 1})
    place.study.tamper("UPDATE audit SET reason = substr(reason, 2) WHERE seq = 2")
    next_night(place, verify)
    assert place.is_green(Kind.AUDIT_BROKEN)
    assert place.told() == [("audit_broken", "opened"), ("audit_broken", "resolved")]


@pytest.mark.provokes(Kind.REPLAY_DIVERGED)
def test_a_decision_that_its_own_inputs_do_not_give(place: Place) -> None:
    play(place.study, people=2, points=3)
    replay()
    assert place.open() == {}
    last = "WHERE id = (SELECT max(id) FROM decisions)"
    place.study.tamper(f"UPDATE decisions SET act_prob = act_prob - 0.01 {last}")
    replay()
    assert found(place, Kind.REPLAY_DIVERGED) == ("red", {"decisions": 6, "kinds": 1, "divergences": 1})
    next_night(place, replay)
    assert place.listed()[0]["count"] == 2
    place.study.tamper(f"UPDATE decisions SET act_prob = act_prob + 0.01 {last}")
    next_night(place, replay)
    assert place.is_green(Kind.REPLAY_DIVERGED)
    assert place.told() == [("replay_diverged", "opened"), ("replay_diverged", "resolved")]


def test_a_night_with_nothing_to_replay_ends_no_incident(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(place.study, people=1, points=1)
    place.study.tamper("UPDATE decisions SET seed = seed + 1")
    replay()
    monkeypatch.setenv("KAIROS_REPLAY_SAMPLE", "0")
    settings.cache_clear()
    next_night(place, replay)
    assert found(place, Kind.REPLAY_DIVERGED)[0] == "red"


@pytest.mark.provokes(Kind.STATISTICS_DIFFER)
def test_statistics_that_their_rows_do_not_give(place: Place) -> None:
    play(place.study, people=2, points=3)
    fit(place.study)
    compare()
    assert place.open() == {}
    place.study.tamper("UPDATE statistics SET c = c + 1e-12 WHERE participant_id = 2")
    compare()
    assert found(place, Kind.STATISTICS_DIFFER) == ("red", {"participants": 2})
    assert fit(place.study)["policy_id"] == 2
    next_night(place, compare)
    assert place.is_green(Kind.STATISTICS_DIFFER)
    assert place.told() == [("statistics_differ", "opened"), ("statistics_differ", "resolved")]

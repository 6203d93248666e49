"""A version of other features, or another prior, and what is learnt after it; replayed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.core.session import transact
from models.trial import policies
from replay.checks import replay
from tests.api.trial.test_protocols import changed
from tests.flows.oversight.test_conduct_learning import ask, fit, live, queued_refit, status
from tests.flows.trial.test_other_features import shifted
from tests.support.backend import serving
from tests.support.oralytics import Brushers, item
from tests.support.study import Study

__all__ = ["shifted"]
PEOPLE = ("ann", "berta", "cem")


@pytest.fixture
def learning(new_study: Callable[..., Study]) -> tuple[Study, dict[str, int]]:
    """A study whose policy 1 is learnt from three people."""
    study = new_study("refit.min_interval_minutes=0")
    ids = {name: study.enrol(name) for name in PEOPLE}
    live(study, 4, *PEOPLE)
    assert fit(study)["result"] == {"policy_id": 1}
    return study, ids


def policy(study: Study, number: int) -> dict[str, Any]:
    names = "feature_version, row_count, noise_variance, mean, protocol_id"
    query = f"SELECT {names} FROM policies WHERE study_id = %s AND policy_id = %s"
    return study.rows(query, study.study_id, number)[0]


def prior(study: Study) -> int:
    return transact(lambda session: policies.prior(session, study.study_id))


def remove_everybody(study: Study, ids: dict[str, int]) -> dict[str, Any]:
    for one in ids.values():
        ask(study, f"/participants/{one}/remove_from_learning")
    return fit(study, queued_refit(study))


def without_divergence(study: Study, folder: Path) -> None:
    study.service.command("export", study.name, str(folder), "--account", f"admin@{study.name}")
    report = replay(folder)
    assert not report.first, "\n".join(report.lines())


def test_other_features_have_their_own_prior_and_their_own_rows(
    learning: tuple[Study, dict[str, int]], shifted: str, tmp_path: Path
) -> None:
    study, ids = learning
    changed(study, {"protocol": shifted, "refit": {"min_interval_minutes": 0}}, amendment=True)
    assert (status(study)["policy_id"], prior(study)) == (2, 2)
    assert fit(study, queued_refit(study))["result"]["policy_id"] == 2
    live(study, 3, *PEOPLE)
    assert fit(study)["result"] == {"policy_id": 3}
    learnt = policy(study, 3)
    assert (learnt["feature_version"], learnt["row_count"]) == ("shifted-1", 6)
    changed(study, {"refit": {"min_interval_minutes": 0}}, amendment=True)  # and back
    assert (status(study)["policy_id"], prior(study)) == (4, 4)
    assert fit(study, queued_refit(study))["result"] == {"policy_id": 5}
    again = policy(study, 5)
    assert (again["feature_version"], again["row_count"]) == (policy(study, 1)["feature_version"], 12)
    live(study, 2, *PEOPLE)
    assert fit(study)["result"] == {"policy_id": 6}
    without_divergence(study, tmp_path / "export")
    assert remove_everybody(study, ids)["result"]["policy_id"] == 4
    assert study.decide("ann")["policy_id"] == 4
    without_divergence(study, tmp_path / "later")


def test_where_no_row_of_the_new_features_is_left_their_prior_serves(
    learning: tuple[Study, dict[str, int]], shifted: str, tmp_path: Path
) -> None:
    study, ids = learning
    changed(study, {"protocol": shifted, "refit": {"min_interval_minutes": 0}}, amendment=True)
    live(study, 3, *PEOPLE)
    assert fit(study, queued_refit(study))["result"] == {"policy_id": 3}
    assert remove_everybody(study, ids)["result"]["policy_id"] == 2
    decided = study.decide("ann")
    assert (decided["policy_id"], decided["fallback_level"]) == (2, "F0")
    study.enrol("dora")
    live(study, 3, "dora")
    assert fit(study)["result"] == {"policy_id": 4}
    assert policy(study, 4)["row_count"] == 2
    without_divergence(study, tmp_path / "export")


def test_another_prior_serves_and_is_what_fits_begin_with(
    learning: tuple[Study, dict[str, int]], tmp_path: Path
) -> None:
    study, ids = learning
    document = {"prior": {"noise_variance": 0.9}, "refit": {"min_interval_minutes": 0}}
    changed(study, document, amendment=True)
    assert (status(study)["policy_id"], policy(study, 2)["noise_variance"]) == (2, 0.9)
    assert fit(study, queued_refit(study))["result"] == {"policy_id": 3}
    learnt = policy(study, 3)
    assert (learnt["row_count"], learnt["noise_variance"]) == (policy(study, 1)["row_count"], 0.9)
    assert learnt["mean"] != policy(study, 1)["mean"]
    live(study, 2, *PEOPLE)
    assert remove_everybody(study, ids)["result"]["policy_id"] == 2
    live(study, 1, *PEOPLE)
    without_divergence(study, tmp_path / "export")


def test_items_of_decisions_under_another_version_are_kept_as_that_version_says(
    new_study: Callable[..., Study], tmp_path: Path
) -> None:
    with serving() as back_end:
        study = new_study("protocol=oralytics", ema_url=back_end.url)
        brushers = Brushers(study, back_end)
        study.enrol("ann")
        brushed = brushers.decide("ann")
        study.end("ann")
        changed(study, {"protocol": "miwaves"}, amendment=True)
        asked = study.decide("ann")
        told = item("ann", asked, finished_ema=False, app_use_flag=True)
        assert brushers.record("ann", item("ann", brushed, seed=7), told) == "done"
    query = (
        "SELECT decision_id, item ->> 'brushing_seconds' AS seconds, reward FROM answers WHERE study_id = %s"
    )
    stored = {row.pop("decision_id"): row for row in study.rows(query, study.study_id)}
    assert stored[brushed["rid"]] == {"seconds": "90.0", "reward": 90}
    assert stored[asked["rid"]] == {"seconds": None, "reward": None}
    (found,) = study.rows("SELECT decision_id, code FROM discrepancies WHERE study_id = %s", study.study_id)
    assert found == {"decision_id": brushed["rid"], "code": 305}
    without_divergence(study, tmp_path / "export")


def test_a_repeat_gets_what_it_got_whatever_protocol_the_study_has_now(
    new_study: Callable[..., Study],
) -> None:
    study = new_study()
    study.enrol("ann")
    survey = study.decide("ann")
    study.end("ann")
    changed(study, {"protocol": "oralytics"}, amendment=True)
    asked = {"user_id": "ann", "decision_index": 2}
    recorded = study.call("POST", "/decision_points", asked)
    assert recorded.status_code == 200, recorded.text
    assert study.decide("ann", decision_index=1) == survey
    changed(study, {"protocol": "miwaves"}, amendment=True)
    assert study.call("POST", "/decision_points", asked).get_json() == recorded.get_json()
    assert study.decide("ann", decision_index=1) == survey
    assert study.post_actions("ann", decision_index=2).status_code == 422

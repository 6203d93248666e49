"""A version of other features, or another prior, and what is learnt after it; replayed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.core.session import transact
from models.trial import policies
from replay.checks import replay
from tests.api.trial.test_protocols import changed, shifted
from tests.flows.oversight.test_conduct_learning import ask, fit, live, queued_refit, study
from tests.support.backend import serving
from tests.support.oralytics import Brushers, item
from tests.support.study import Trial

__all__ = ["shifted"]
PEOPLE = ("ann", "berta", "cem")


@pytest.fixture
def learning(new_trial: Callable[..., Trial]) -> tuple[Trial, dict[str, int]]:
    """A study whose policy 1 is learnt from three people."""
    trial = new_trial("refit.min_interval_minutes=0")
    ids = {name: trial.enrol(name) for name in PEOPLE}
    live(trial, 4, *PEOPLE)
    assert fit(trial)["result"] == {"policy_id": 1}
    return trial, ids


def policy(trial: Trial, number: int) -> dict[str, Any]:
    names = "feature_version, row_count, noise_variance, mean, protocol_id"
    query = f"SELECT {names} FROM policies WHERE study_id = %s AND policy_id = %s"
    return trial.rows(query, trial.study_id, number)[0]


def prior(trial: Trial) -> int:
    return transact(lambda session: policies.prior(session, trial.study_id))


def remove_everybody(trial: Trial, ids: dict[str, int]) -> dict[str, Any]:
    for one in ids.values():
        ask(trial, f"/participants/{one}/remove_from_learning")
    return fit(trial, queued_refit(trial))


def without_divergence(trial: Trial, folder: Path) -> None:
    trial.service.command("export", trial.name, str(folder), "--account", f"admin@{trial.name}")
    report = replay(folder)
    assert not report.first, "\n".join(report.lines())


def test_other_features_have_their_own_prior_and_their_own_rows(
    learning: tuple[Trial, dict[str, int]], shifted: str, tmp_path: Path
) -> None:
    trial, ids = learning
    changed(trial, {"protocol": shifted, "refit": {"min_interval_minutes": 0}}, amendment=True)
    assert (study(trial)["policy_id"], prior(trial)) == (2, 2)
    assert fit(trial, queued_refit(trial))["result"]["policy_id"] == 2
    live(trial, 3, *PEOPLE)
    assert fit(trial)["result"] == {"policy_id": 3}
    learnt = policy(trial, 3)
    assert (learnt["feature_version"], learnt["row_count"]) == ("shifted-1", 6)
    changed(trial, {"refit": {"min_interval_minutes": 0}}, amendment=True)  # and back
    assert (study(trial)["policy_id"], prior(trial)) == (4, 4)
    assert fit(trial, queued_refit(trial))["result"] == {"policy_id": 5}
    again = policy(trial, 5)
    assert (again["feature_version"], again["row_count"]) == (policy(trial, 1)["feature_version"], 12)
    live(trial, 2, *PEOPLE)
    assert fit(trial)["result"] == {"policy_id": 6}
    without_divergence(trial, tmp_path / "export")
    assert remove_everybody(trial, ids)["result"]["policy_id"] == 4
    assert trial.decide("ann")["policy_id"] == 4
    without_divergence(trial, tmp_path / "later")


def test_where_no_row_of_the_new_features_is_left_their_prior_serves(
    learning: tuple[Trial, dict[str, int]], shifted: str, tmp_path: Path
) -> None:
    trial, ids = learning
    changed(trial, {"protocol": shifted, "refit": {"min_interval_minutes": 0}}, amendment=True)
    live(trial, 3, *PEOPLE)
    assert fit(trial, queued_refit(trial))["result"] == {"policy_id": 3}
    assert remove_everybody(trial, ids)["result"]["policy_id"] == 2
    decided = trial.decide("ann")
    assert (decided["policy_id"], decided["fallback_level"]) == (2, "F0")
    trial.enrol("dora")
    live(trial, 3, "dora")
    assert fit(trial)["result"] == {"policy_id": 4}
    assert policy(trial, 4)["row_count"] == 2
    without_divergence(trial, tmp_path / "export")


def test_another_prior_serves_and_is_what_fits_begin_with(
    learning: tuple[Trial, dict[str, int]], tmp_path: Path
) -> None:
    trial, ids = learning
    document = {"prior": {"noise_variance": 0.9}, "refit": {"min_interval_minutes": 0}}
    changed(trial, document, amendment=True)
    assert (study(trial)["policy_id"], policy(trial, 2)["noise_variance"]) == (2, 0.9)
    assert fit(trial, queued_refit(trial))["result"] == {"policy_id": 3}
    learnt = policy(trial, 3)
    assert (learnt["row_count"], learnt["noise_variance"]) == (policy(trial, 1)["row_count"], 0.9)
    assert learnt["mean"] != policy(trial, 1)["mean"]
    live(trial, 2, *PEOPLE)
    assert remove_everybody(trial, ids)["result"]["policy_id"] == 2
    live(trial, 1, *PEOPLE)
    without_divergence(trial, tmp_path / "export")


def test_items_of_decisions_under_another_version_are_kept_as_that_version_says(
    new_trial: Callable[..., Trial], tmp_path: Path
) -> None:
    with serving() as back_end:
        trial = new_trial("protocol=oralytics", ema_url=back_end.url)
        brushers = Brushers(trial, back_end)
        trial.enrol("ann")
        brushed = brushers.decide("ann")
        trial.end("ann")
        changed(trial, {"protocol": "miwaves"}, amendment=True)
        asked = trial.decide("ann")
        told = item("ann", asked, finished_ema=False, app_use_flag=True)
        assert brushers.record("ann", item("ann", brushed, seed=7), told) == "done"
    query = (
        "SELECT decision_id, item ->> 'brushing_seconds' AS seconds, reward FROM answers WHERE study_id = %s"
    )
    stored = {row.pop("decision_id"): row for row in trial.rows(query, trial.study_id)}
    assert stored[brushed["rid"]] == {"seconds": "90.0", "reward": 90}
    assert stored[asked["rid"]] == {"seconds": None, "reward": None}
    (found,) = trial.rows("SELECT decision_id, code FROM discrepancies WHERE study_id = %s", trial.study_id)
    assert found == {"decision_id": brushed["rid"], "code": 305}
    without_divergence(trial, tmp_path / "export")


def test_a_repeat_gets_what_it_got_whatever_protocol_the_study_has_now(
    new_trial: Callable[..., Trial],
) -> None:
    trial = new_trial()
    trial.enrol("ann")
    survey = trial.decide("ann")
    trial.end("ann")
    changed(trial, {"protocol": "oralytics"}, amendment=True)
    asked = {"user_id": "ann", "decision_index": 2}
    recorded = trial.call("POST", "/decision_points", asked)
    assert recorded.status_code == 200, recorded.text
    assert trial.decide("ann", decision_index=1) == survey
    changed(trial, {"protocol": "miwaves"}, amendment=True)
    assert trial.call("POST", "/decision_points", asked).get_json() == recorded.get_json()
    assert trial.decide("ann", decision_index=1) == survey
    assert trial.actions("ann", decision_index=2).status_code == 422

"""A version with other features: no policy and no rung of the ladder that belongs to the old ones."""

from dataclasses import dataclass
from typing import Any

import pytest

from algorithm.trial import designs
from algorithm.trial.designs.miwaves import MiWaves
from tests.api.trial.test_protocols import WHY, changed, refits, refused
from tests.support.study import Study
from workers.trial import refit

FINISHED = {"finished_ema": True, "activity_question_response": True, "cannabis_use": []}


@dataclass
class Shifted(MiWaves):
    """The same variables, and another meaning of one of them."""

    name = "shifted"
    feature_version = "shifted-1"


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(designs.DESIGNS, "shifted", Shifted())
    return "shifted"


def learn(study: Study) -> dict[str, Any]:
    """A refit that is run here; its job."""
    job_id = study.call("POST", "/update_parameters", role="admin").get_json()["job_id"]
    refit.run(job_id)
    return dict(study.job(job_id))


def test_no_policy_of_other_features_serves_a_new_version(study: Study, shifted: str) -> None:
    for name in ("ann", "bob"):
        study.enrol(name)
        study.live(name, 4)
    assert learn(study)["policy_id"] == 1
    changed(study, {"protocol": shifted}, amendment=True)
    found = [study.decide(name, **FINISHED) for name in ("ann", "bob")]
    assert {(one["policy_id"], one["fallback_level"]) for one in found} == {(2, "F0")}
    assert {tuple(one["state"]) for one in found} == {(1.0, 0.0, 1.0)}  # S1 of this reward alone
    (job_id,) = refits(study)
    refit.run(job_id)
    assert study.call("GET", "/study").get_json()["policy_id"] == 2  # no row under the new features yet
    for name in ("ann", "bob"):
        study.end(name)
        study.live(name, 3)
    assert learn(study)["policy_id"] == 3
    (policy,) = study.rows(
        "SELECT feature_version, row_count FROM policies WHERE study_id = %s AND policy_id = 3",
        study.study_id,
    )
    assert (policy["feature_version"], policy["row_count"]) == ("shifted-1", 6)
    older = study.call("POST", "/policies/1/activate", {"reason": WHY}, role="admin")
    assert refused(older) == (409, 935, [])
    assert study.decide("ann")["policy_id"] == 3


@pytest.mark.parametrize("damage", ["UPDATE policies SET advantage_mean = '{}'", "DELETE FROM policies"])
def test_no_rung_of_the_ladder_leads_to_other_features(study: Study, shifted: str, damage: str) -> None:
    study.enrol("ann")
    study.live("ann", 4)
    assert learn(study)["policy_id"] == 1
    changed(study, {"protocol": shifted}, amendment=True)
    assert study.tamper(f"{damage} WHERE study_id = %s AND policy_id = 2", study.study_id) == 1
    assert study.decide("ann")["fallback_level"] == "F3"
    study.end("ann")
    study.tamper("UPDATE studies SET policy_id = 1 WHERE id = %s", study.study_id)  # as nobody should
    assert study.decide("ann")["fallback_level"] == "F3"


def test_a_fit_that_a_new_version_overtakes_is_dropped(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.enrol("ann")
    study.live("ann", 4)
    fit = refit.fit

    def overtaken(*arguments: Any) -> Any:
        changed(study, {"prior": {"noise_variance": 0.9}}, amendment=True)
        return fit(*arguments)

    monkeypatch.setattr(refit, "fit", overtaken)
    job = learn(study)
    assert (job["state"], job["policy_id"]) == ("done", 1)
    (serving,) = study.rows("SELECT policy_id FROM studies WHERE id = %s", study.study_id)
    (prior,) = study.rows(
        "SELECT noise_variance, row_count FROM policies WHERE study_id = %s AND policy_id = 1", study.study_id
    )
    assert (serving["policy_id"], prior["noise_variance"], prior["row_count"]) == (1, 0.9, 0)
    monkeypatch.setattr(refit, "fit", fit)
    assert learn(study)["policy_id"] == 2

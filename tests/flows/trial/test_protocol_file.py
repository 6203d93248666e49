"""A protocol in which every key is set goes through its file, to a deployment that has seen nothing of it."""

import json
from pathlib import Path

from algorithm.trial.amendments import changes, leaves
from algorithm.trial.protocol import default_document, digest, load
from local.embedded import Embedded
from tests.support.configured import configured, database
from tests.support.service import Service
from tests.support.study import NOBODY

EVERYTHING = {
    "protocol": "miwaves",
    "algorithm": "fixed_probability",
    "algorithm_parameters": {"probability": 0.3},
    "prior": {"mean": [0.1] * 24, "sd": [0.7] * 24, "sigma_u": 0.03, "noise_variance": 0.9},
    "hyperparameters": {"rule": "fixed", "nu0": 29.0, "sigma_u0": 0.02, "nu_s": 6.0, "subsample": 500},
    "allocation": {"lower": 0.15, "upper": 0.85, "B": 3.3333333333333335, "C": 4.0},
    "gate": {"mean_bound": 7.1},
    "state": {"cannabis_use": "hours"},
    "schedule": {"study_length": 33, "points_per_day": 3, "window_hours": 5.5, "look_back_hours": 2.5},
    "refit": {"min_interval_minutes": 1.5, "nightly_only": True, "nightly_hour": 4, "weekly_day": 6},
    "withdrawal": {"data": "remove_from_learning"},
    "envelope": {
        "quiet_hours": {"from": 2230, "to": 615},
        "cool_down_hours": 1.5,
        "daily_cap": 2,
        "weekly_cap": 9,
    },
}
ONE_VALUE = {
    "protocol",
    "feature_version",
    "schedule.outcome_lag",
    "fallback.order",
    "fallback.unknown_state_probability",
} | {f"missing_data.{name}" for name in ("outcome", "earlier_reward", "state", "earlier_features")}
"""Keys that may say one thing only."""


def created(service: Service, file: Path) -> str:
    """The file that is exported from a study which is created from another one."""
    told = ("study", "create", "trial", "--ema-url", NOBODY, "--protocol-file", str(file))
    assert service.command(*told)["protocol_hash"] == digest(EVERYTHING)
    exported = service.app.test_cli_runner().invoke(args=["protocol", "export", "trial"])
    assert exported.exit_code == 0, exported.output
    return str(exported.output)


def test_every_key_is_set() -> None:
    usual, whole = default_document("miwaves"), load(EVERYTHING).document
    assert {key for key in leaves(usual) if key not in changes(usual, whole)} == ONE_VALUE


def test_a_file_replicates_a_study_on_another_deployment(
    embedded: Embedded, migrated: str, fresh_database: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(json.dumps(EVERYTHING))
    with configured(embedded, fresh_database) as service:
        second.write_text(created(service, first))
    assert json.loads(second.read_text()) == load(EVERYTHING).document
    with database(embedded, migrated) as elsewhere, configured(embedded, elsewhere) as service:
        assert created(service, second) == second.read_text()

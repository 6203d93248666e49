"""The bundle against the package that takes it: its own input checks, and its whole analysis."""

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from analysis import lifejacket, results, slots, trial
from analysis.export import BadExport, Export
from tests.analysis import synthetic

SMALL = {"protocol": "oralytics", "hyperparameters": {"rule": "fixed"}}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """A trial of 14 participants, 6 points and 2 policies that were learnt."""
    folder = tmp_path_factory.mktemp("small")
    return Export(synthetic.export(folder, participants=14, points=6, every=2, document=SMALL))


@pytest.fixture(scope="module")
def written(small: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    lifejacket.write(lifejacket.bundle(small, []), folder)
    return folder


@pytest.fixture(scope="module")
def package() -> ModuleType:
    return pytest.importorskip("lifejacket.post_deployment_analysis", reason="lifejacket cannot be imported")


def arguments(found: lifejacket.Bundle, written: Path) -> dict[str, Any]:
    """What lifejacket's analysis is called with."""
    from lifejacket.helper_functions import load_function_from_same_named_file as source

    return {
        **lifejacket.SETTINGS,
        "alg_update_func_args_previous_betas_index": -1000,
        "analysis_df": lifejacket.frame(found),
        "action_prob_func": source(str(written / "message_probability.py")),
        "action_prob_func_args": found.probability_arguments,
        "alg_update_func": source(str(written / "policy_update.py")),
        "alg_update_func_args": found.update_arguments,
        "inference_func": source(str(written / "effect_loss.py")),
        "theta_calculation_func": source(str(written / "effect.py")),
    }


def test_its_whole_analysis_runs_with_every_check(
    small: Export, written: Path, tmp_path: Path, package: ModuleType
) -> None:
    """All its input checks are on; only its questions to a person are not asked."""
    logging.getLogger("lifejacket").setLevel(logging.WARNING)
    found = package.analyze_dataset(
        output_dir=tmp_path,
        **arguments(lifejacket.bundle(small, []), written),
        suppress_interactive_data_checks=True,
        suppress_all_data_checks=False,
        small_sample_correction="none",
        collect_data_for_blowup_supervised_learning=False,
        form_adjusted_meat_adjustments_explicitly=False,
        stabilize_joint_bread=False,
    )
    own = results.effects(trial.load(small), corrected=False)
    assert found["theta_est"][-1] == pytest.approx(own.estimates[0].value, abs=1e-8)
    plain = np.sqrt(found["classical_sandwich_var_estimate"][-1, -1])
    assert plain == pytest.approx(own.estimates[0].error, rel=1e-6)
    adjusted = np.sqrt(found["adjusted_sandwich_var_estimate"][-1, -1])
    assert 0.3 < adjusted / plain < 3

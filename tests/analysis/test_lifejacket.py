"""The bundle against the package that takes it: its own input checks, and its whole analysis."""

import logging
import pickle
from importlib import import_module
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
    """A trial of 10 participants, 4 points and one policy that was learnt."""
    folder = tmp_path_factory.mktemp("small")
    return Export(synthetic.export(folder, participants=10, points=4, every=2, document=SMALL))


@pytest.fixture(scope="module")
def written(small: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    lifejacket.write(lifejacket.bundle(small, []), folder)
    return folder


@pytest.fixture(scope="module")
def package() -> ModuleType:
    pytest.importorskip("lifejacket", reason="lifejacket cannot be imported")
    return import_module("lifejacket.post_deployment_analysis")


def arguments(found: lifejacket.Bundle, written: Path) -> dict[str, Any]:
    """What lifejacket's analysis is called with."""
    source = import_module("lifejacket.helper_functions").load_function_from_same_named_file
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
    small: Export, written: Path, tmp_path: Path, package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its input checks are on; only its questions to a person are not asked. A slow diagnostic
    of its own, which may fail without harm and comes after the estimates, fails at its first step."""
    monkeypatch.setattr(package.jax.random, "PRNGKey", None)
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
    pieces = pickle.loads((tmp_path / "debug_pieces.pkl").read_bytes())
    assert np.abs(np.mean(pieces["all_estimating_function_stacks"], axis=0)).max() < 1e-9


def test_a_wrong_probability_is_found_by_its_checks(
    small: Export, written: Path, package: ModuleType
) -> None:
    """The negative control."""
    given = arguments(lifejacket.bundle(small, []), written)
    frame = given["analysis_df"]
    names = ("act_prob", "slot", "participant", "in_study")
    last = (given["action_prob_func_args"], given["action_prob_func"])
    check = package.input_checks.require_action_probabilities_in_analysis_df_can_be_reconstructed
    check(frame, *names, *last)
    frame.loc[frame.index[3], "act_prob"] += 1e-5
    with pytest.raises(AssertionError):
        check(frame, *names, *last)


def test_probabilities_of_a_larger_trial_follow_from_the_bundle(
    trial_export: Export, written: Path, package: ModuleType
) -> None:
    """Every randomised decision of a MiWaves trial with gaps, within 1e-9."""
    found = lifejacket.bundle(trial_export, ["evening"])
    columns = found.columns
    function = arguments(found, written)["action_prob_func"]
    for slot, one, active, act_prob in zip(
        *(columns[name] for name in ("slot", "participant", "in_study", "act_prob")), strict=True
    ):
        given = found.probability_arguments[int(slot)][int(one)]
        assert bool(given) == bool(active)
        if given:
            assert float(function(*given)) == pytest.approx(act_prob, abs=1e-9)
    assert columns["counted"].sum() == trial.load(trial_export).known.sum()
    assert len(found.moderators) == 2


def test_slots_are_in_order_and_of_one_policy() -> None:
    """Participant 1 meets policies 0, 0, 2; participant 2 meets 0, 2, then a fallback to 0, then 2."""
    found = slots.arrange(
        np.array([1, 1, 1, 2, 2, 2, 2]),
        np.array([0, 0, 2, 0, 2, 0, 2.0]),
        np.array([True, True, True, True, True, True, False]),
        ["F0", "F0", "F0", "F0", "F0", "F1", "F0"],
    )
    assert found.slot.tolist() == [0, 1, 2, 0, 2, 3, 4]
    assert found.policy.tolist() == [0, 0, 2, 2, 2]
    assert found.number.tolist() == [0, 0, 1, 1, 1]
    assert found.decided.tolist() == [True, True, True, True, True, False, False]


def test_a_trial_that_learnt_nothing_needs_no_bundle(tmp_path: Path) -> None:
    document = {"protocol": "miwaves", "algorithm": "fixed_probability"}
    folder = synthetic.export(tmp_path, participants=3, points=4, every=9, document=document)
    with pytest.raises(BadExport, match="no policy that was learnt"):
        lifejacket.bundle(Export(folder), [])


def test_the_command_names_files_that_are_there(written: Path) -> None:
    command = (written / "analyze.sh").read_text(encoding="utf-8")
    files = [
        word.partition("=")[2] for word in command.split() if "=" in word and word[-3:] in ("pkl", ".py")
    ]
    assert len(files) == 7
    assert all((written / name).exists() for name in files)

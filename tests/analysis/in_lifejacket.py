"""What lifejacket says of bundles, as JSON: `python -m tests.analysis.in_lifejacket SMALL LARGE FOLDER` with
two exports and an empty folder. A process of its own, since jax starts threads and tests after it fork
servers. Exit code 77: the package cannot be imported."""

import json
import logging
import pickle
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from analysis import lifejacket
from analysis.export_reader import Export


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


def analysed(package: Any, given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Its whole analysis with all its input checks; only its questions to a person are not asked. A slow
    diagnostic of its own, which may fail without harm and comes after the estimates, fails at its first
    step."""
    package.jax.random.PRNGKey = None
    found = package.analyze_dataset(
        output_dir=folder,
        **given,
        suppress_interactive_data_checks=True,
        suppress_all_data_checks=False,
        small_sample_correction="none",
        collect_data_for_blowup_supervised_learning=False,
        form_adjusted_meat_adjustments_explicitly=False,
        stabilize_joint_bread=False,
    )
    pieces = pickle.loads((folder / "debug_pieces.pkl").read_bytes())
    stacks = np.array(pieces["all_estimating_function_stacks"])
    return {
        "effect": float(found["theta_est"][-1]),
        "classical": float(np.sqrt(found["classical_sandwich_var_estimate"][-1, -1])),
        "adjusted": float(np.sqrt(found["adjusted_sandwich_var_estimate"][-1, -1])),
        "equations": stacks.shape[1],
        "largest_sum": float(np.abs(stacks.mean(axis=0)).max()),
    }


def refused(package: Any, given: dict[str, Any]) -> bool:
    """Whether it refuses one probability that is wrong by 1e-5."""
    frame = given["analysis_df"].copy()
    frame.loc[frame.index[3], "act_prob"] += 1e-5
    check = package.input_checks.require_action_probabilities_in_analysis_df_can_be_reconstructed
    names = ("act_prob", "slot", "participant", "in_study")
    try:
        check(frame, *names, given["action_prob_func_args"], given["action_prob_func"])
    except AssertionError:
        return True
    return False


def differences(found: lifejacket.Bundle, function: Any) -> list[float]:
    """Logged minus rebuilt probability of every slot in which a participant is in the study."""
    columns = (found.columns[name].tolist() for name in ("slot", "participant", "act_prob"))
    rows = [
        (found.probability_arguments[slot][one], logged) for slot, one, logged in zip(*columns, strict=True)
    ]
    assert [bool(given) for given, _ in rows] == [bool(active) for active in found.columns["in_study"]]
    return [float(function(*given)) - logged for given, logged in rows if given]


def begun(export: Path, folder: Path) -> tuple[Any, lifejacket.Bundle, dict[str, Any]]:
    """The package, the bundle of an export, written into `folder`, and its arguments."""
    try:
        package = import_module("lifejacket.post_deployment_analysis")
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(77)
    logging.disable(logging.INFO)
    bundle = lifejacket.bundle(Export(export), [])
    lifejacket.write(bundle, folder)
    return package, bundle, arguments(bundle, folder)


def main() -> None:
    small, large, folder = map(Path, sys.argv[1:])
    package, _bundle, given = begun(small, folder)
    rebuilt = differences(lifejacket.bundle(Export(large), ["evening"]), given["action_prob_func"])
    told = {
        "refused": refused(package, given),
        "largest_difference": max(map(abs, rebuilt)),
        "rebuilt": len(rebuilt),
    }
    told |= analysed(package, given, folder)
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()

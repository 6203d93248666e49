"""What lifejacket's own input checks say of the bundle of an export, as JSON: `python -m
tests.analysis.checked_by_lifejacket EXPORT FOLDER` with an empty folder, in a process of its own. Exit code
77: the package cannot be imported."""

import json
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from tests.analysis.in_lifejacket import begun, refused

CHECKS = "perform_first_wave_input_checks"


def passes(package: Any, given: dict[str, Any], update: Any) -> int:
    """How many numbers the estimate has, where every input check passes; else they raise."""
    theta = given["theta_calculation_func"](given["analysis_df"])
    more = {"theta_est": theta, "beta_dim": len(update[0]), "small_sample_correction": "none"}
    check = getattr(package.input_checks, CHECKS)
    told = given | more | {"suppress_interactive_data_checks": True}
    check(**{name: told[name] for name in signature(check).parameters})
    return len(theta)


def equations(given: dict[str, Any]) -> list[float]:
    """For each policy the largest of its equations, which must be solved: a mean over participants."""
    update, found = given["alg_update_func"], given["alg_update_func_args"]
    sums = ([update(*own) for own in people.values() if own] for people in found.values())
    return [float(np.abs(np.mean(each, axis=0)).max()) for each in sums]


def main() -> None:
    export, folder = map(Path, sys.argv[1:])
    package, bundle, given = begun(export, folder)
    update = next(own for own in bundle.update_arguments[1].values() if own)
    told = {
        "estimates": passes(package, given, update),
        "equations": equations(given),
        "refused": refused(package, given),
        "constant": bundle.constant,
    }
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Published posteriors and coefficients beside the clone, loaded for tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algorithm.trial.learning_rows import Points, Rows, join

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "reference"
POSTERIORS = ("posterior_m2_n2_n17.json", "posterior_m5_mixed.json", "posterior_m20_mixed.json")


def path(name: str) -> Path:
    """The reference file `name`; the test is skipped where the clone has no reference folder beside it."""
    if not FOLDER.is_dir():
        pytest.skip(f"no reference data at {FOLDER}")
    return FOLDER / name


def document(name: str) -> Any:
    """A JSON reference file."""
    return json.loads(path(name).read_text())


def trial(reference: Any) -> tuple[Rows, list[str]]:
    """The learning rows of a reference posterior and its participants' names by code."""
    users = list(dict.fromkeys(row[0] for row in reference["rows"]))
    who, index, states, action, act_prob, reward = zip(*reference["rows"], strict=True)
    points = Points(
        participant=np.array([users.index(user) for user in who]),
        index=np.array(index),
        states=np.array(states, dtype=np.float64),
        act_prob=np.array(act_prob),
        action=np.array(action),
        reward=np.array(reward),
        randomised=np.ones(len(who), dtype=np.bool_),
    )
    return join(points, outcome_lag=1), users

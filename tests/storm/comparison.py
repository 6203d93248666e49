"""The comparison of two runs, and of a policy with a serial fit of the stored decisions."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from algorithm.trial import learner, protocol
from algorithm.trial.learner import Fit
from algorithm.trial.learning_rows import Points, join
from models.core.pg_arrays import pack
from tests.storm import stored

TOLERANCE = 1e-9
COLUMNS = (
    *("participants", "row_count", "statistics_hash", "mean", "covariance", "sigma_u", "noise_variance"),
    *("advantage_mean", "advantage_covariance"),
)


def differences(left: Any, right: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each place at which two nested values differ; floats differ from 1e-9 on."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys(), key=str):
            yield from differences(left.get(key), right.get(key), f"{path} {key}")
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for place, (a, b) in enumerate(zip(left, right, strict=True)):
            yield from differences(a, b, f"{path} [{place}]")
    elif isinstance(left, float) and isinstance(right, float):
        if not math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            yield f"{path}: {left} and {right}"
    elif left != right:
        yield f"{path}: {left} and {right}"


def numbers(value: Any) -> int:
    """Return the number of single values in a nested one."""
    if isinstance(value, dict):
        return sum(map(numbers, value.values()))
    return sum(map(numbers, value)) if isinstance(value, list) else 1


def refitted(database_url: str, study: str) -> dict[str, Any]:
    """Fit the stored decisions serially and return the policy and blocks in the form of their tables."""
    (row_of_study,) = stored.read(database_url, stored.STUDY, study)
    study_protocol = protocol.load(row_of_study["document"])
    decisions = stored.read(database_url, stored.DECISIONS, study)
    ids, codes = np.unique([row["participant_id"] for row in decisions], return_inverse=True)
    unknown = [math.nan] * len(study_protocol.design.state_names)
    points = Points(
        codes.astype(np.int64),
        np.array([row["decision_index"] for row in decisions]),
        np.array([row["state"] or unknown for row in decisions]),
        np.array([row["act_prob"] for row in decisions]),
        np.array([row["action"] for row in decisions]),
        np.array([math.nan if row["reward"] is None else row["reward"] for row in decisions]),
        # F4 draws without a policy: such a decision is no learning row
        np.array([row["state"] is not None and row["fallback_level"] != "F4" for row in decisions]),
    )
    members = ids.tolist()
    rows = join(points, study_protocol.schedule.outcome_lag)
    return _as_stored(learner.fit(study_protocol, rows, len(members)), members)


def serving(database_url: str, study: str) -> dict[str, Any]:
    """Return the policy that serves and its blocks, in the form of their tables."""
    (policy,) = (row for row in stored.read(database_url, stored.POLICIES, study) if row["serves"])
    blocks = stored.read(database_url, stored.BLOCKS, study)
    values = {name: policy[name] for name in COLUMNS}
    return values | {"blocks": {row["participant_id"]: [row["mean"], row["covariance"]] for row in blocks}}


def _as_stored(fitted: Fit, members: list[int]) -> dict[str, Any]:
    """Return a fit in the form of the tables; `members` are the participants' ids."""
    values = (
        [member for member, count in zip(members, fitted.counts, strict=True) if count],
        fitted.rows,
        fitted.statistics_hash,
        fitted.population_mean.tolist(),
        fitted.population_covariance.ravel().tolist(),
        fitted.sigma_u.ravel().tolist(),
        fitted.noise_variance,
        fitted.block.mean.tolist(),
        fitted.block.covariance.ravel().tolist(),
    )
    blocks = zip(members, fitted.beta.tolist(), pack(fitted.V).tolist(), strict=True)
    return dict(zip(COLUMNS, values, strict=True)) | {
        "blocks": {member: [mean, packed] for member, mean, packed in blocks}
    }

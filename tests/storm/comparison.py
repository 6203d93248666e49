"""Two runs against each other, and a policy against a serial fit of the stored decisions."""

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


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Where two nested values differ; numbers by more than 1e-9."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys(), key=str):
            yield from differences(one.get(key), other.get(key), f"{where} {key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (mine, yours) in enumerate(zip(one, other, strict=True)):
            yield from differences(mine, yours, f"{where} [{place}]")
    elif not _equal(one, other):
        yield f"{where}: {one} and {other}"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(one == other)


def numbers(value: Any) -> int:
    """How many single values there are in a nested one."""
    if isinstance(value, dict):
        return sum(map(numbers, value.values()))
    return sum(map(numbers, value)) if isinstance(value, list) else 1


def refitted(database_url: str, study: str) -> dict[str, Any]:
    """The policy and the blocks that one serial fit makes of the stored decisions, as tables have them."""
    (found,) = stored.read(database_url, stored.STUDY, study)
    made = protocol.load(found["document"])
    decisions = stored.read(database_url, stored.DECISIONS, study)
    points, members = _points(decisions, len(made.design.state_names))
    fitted = learner.fit(made, join(points, made.schedule.outcome_lag), len(members))
    return _as_stored(fitted, members)


def serving(database_url: str, study: str) -> dict[str, Any]:
    """The policy that serves, in the same form."""
    (policy,) = (row for row in stored.read(database_url, stored.POLICIES, study) if row["serves"])
    blocks = stored.read(database_url, stored.BLOCKS, study)
    found = {name: policy[name] for name in COLUMNS}
    return found | {"blocks": {row["participant_id"]: [row["mean"], row["covariance"]] for row in blocks}}


def _points(decisions: list[stored.Row], variables: int) -> tuple[Points, list[int]]:
    ids, codes = np.unique([row["participant_id"] for row in decisions], return_inverse=True)
    unknown = [math.nan] * variables
    points = Points(
        codes.astype(np.int64),
        np.array([row["decision_index"] for row in decisions]),
        np.array([row["state"] or unknown for row in decisions]),
        np.array([row["act_prob"] for row in decisions]),
        np.array([row["action"] for row in decisions]),
        np.array([math.nan if row["reward"] is None else row["reward"] for row in decisions]),
        np.array([row["state"] is not None and row["fallback_level"] != "F4" for row in decisions]),
    )
    return points, ids.tolist()


def _as_stored(fitted: Fit, members: list[int]) -> dict[str, Any]:
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

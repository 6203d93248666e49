"""The estimate of the effect from the table of decisions."""

from typing import Any

import numpy as np


def weighted_estimate(df: Any, controls: list[str], moderators: list[str]) -> Any:
    """Return the coefficients of the columns `controls` and then of `moderators`, (q + p,)."""
    rows = df[(df["in_study"] == 1) & (df["counted"] == 1)]
    a, p, pt = (rows[name].to_numpy(dtype=float) for name in ("action", "act_prob", "numerator"))
    W = np.where(a == 1, pt / p, (1 - pt) / (1 - p))
    D = np.column_stack(
        [rows[controls].to_numpy(dtype=float), (a - pt)[:, None] * rows[moderators].to_numpy(dtype=float)]
    )
    y = rows["outcome"].to_numpy(dtype=float)
    return np.linalg.solve(D.T @ (W[:, None] * D), D.T @ (W * y))

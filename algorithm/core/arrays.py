"""The array types of the mathematics, and read-only arrays."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Mapper = Callable[..., Iterable[Any]]
"""The built-in `map`, or the `map` of an executor. Threads are enough, because numpy releases the
interpreter lock while it computes. An executor of processes works too, but it is sent all rows with every
block."""


def frozen(values: Any) -> Floats:
    """Return a read-only float64 copy of `values`."""
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array

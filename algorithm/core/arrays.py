"""The types that the mathematics speaks."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Mapper = Callable[..., Iterable[Any]]
"""The built-in `map`, or that of an executor. Threads do: numpy lets go of the interpreter while it
computes. An executor of processes works too, but is sent all rows with every block."""


def frozen(values: Any) -> Floats:
    """A read-only float64 copy of `values`."""
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array

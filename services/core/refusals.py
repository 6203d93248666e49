"""Refusals: the one way in which any part of the service says no, whoever asked.

A fault is a kind of refusal with its own number. The faults of an area stand in the area's `faults.py`; two
faults never share a number. The numbers below 900 are those of the MiWaves service.
"""

from enum import Enum

from pydantic import BaseModel

RETRY_AFTER_SECONDS = 2


class Fault(Enum):
    """A kind of refusal: error_code, HTTP status and message. The members are in the areas' subclasses."""

    def __init__(self, code: int, status: int, message: str) -> None:
        self.code = code
        self.status = status
        self.message = message


class FieldError(BaseModel):
    """A field that is missing or wrong, and why; never the value itself."""

    field: str
    message: str


class Refusal(Exception):
    """The end of a piece of work with a fault, before anything was written.

    errors: the fields at fault. retry_after: seconds to wait before the next try.
    """

    def __init__(
        self,
        fault: Fault,
        message: str = "",
        errors: list[FieldError] | None = None,
        retry_after: int = RETRY_AFTER_SECONDS,
    ) -> None:
        super().__init__(fault.name)
        self.fault = fault
        self.message = message or fault.message
        self.errors = errors
        self.retry_after = retry_after


def all_faults() -> list[Fault]:
    """Return every fault of every area that is loaded, by number."""
    return sorted((fault for area in Fault.__subclasses__() for fault in area), key=lambda fault: fault.code)


def fault_of(code: int) -> Fault:
    """Return the fault with this number. Raises LookupError."""
    for fault in all_faults():
        if fault.code == code:
            return fault
    raise LookupError(f"no fault has the number {code}")

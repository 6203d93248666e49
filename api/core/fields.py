"""Field types that several bodies share, with the error code that each field carries."""

import re
from datetime import date, datetime, timedelta
from functools import cache
from typing import Annotated, Any
from zoneinfo import available_timezones

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field
from pydantic.fields import FieldInfo

from services.core.faults import CoreFault
from services.core.refusals import Fault, fault_of

LONGEST_NAME = 128
SHORTEST_PASSWORD = 8  # for new accounts: those with a shorter password go on logging in
ISO_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
ISO_INSTANT = re.compile(rf"{ISO_DAY.pattern}[Tt ].+")
WIDEST_OFFSET = timedelta(hours=15)  # no place is further from UTC; from 16 hours on PostgreSQL takes none
NO_PLACES = {"Factory", "localtime"}  # in the folder of zones, but on each machine another one or none


def coded(fault: Fault, **constraints: Any) -> Any:
    """Return a field whose violation is answered with `fault`."""
    return Field(json_schema_extra={"x-error-code": fault.code}, **constraints)


def code_of(field: FieldInfo | None) -> Fault:
    """Return the fault with which a violation of `field` is answered."""
    extra = field.json_schema_extra if field else None
    code = extra.get("x-error-code") if isinstance(extra, dict) else None
    return fault_of(code) if isinstance(code, int) else CoreFault.FIELD


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("only printable characters")
    return text


@cache
def _zones() -> frozenset[str]:
    """Return the names of all time zones; finding them takes a quarter of a second."""
    return frozenset(available_timezones() - NO_PLACES)


def zone(name: str) -> str:
    """Return the name of a time zone. Raises ValueError where it is none."""
    if name not in _zones():
        raise ValueError("not an IANA time zone")
    return name


def _written(form: re.Pattern[str], name: str) -> BeforeValidator:
    """Take text of this form alone: pydantic would read a number, in quotes too, as seconds since 1970."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and form.fullmatch(value):
            return value
        raise ValueError(f"must be written as {name}")

    return BeforeValidator(check)


def instant(time: datetime) -> datetime:
    """Return a time with an offset that the database can hold and give back. Raises ValueError on others."""
    if not 1970 <= time.year < 2200:
        raise ValueError("the year must lie between 1970 and 2199")
    if abs(time.utcoffset() or timedelta()) > WIDEST_OFFSET:
        raise ValueError("the offset must lie between -15:00 and +15:00")
    return time


def clock(hhmm: int) -> int:
    """Return a local time HHMM. Raises ValueError where it is none."""
    if not 0 <= hhmm <= 2359 or hhmm % 100 > 59:
        raise ValueError("not a time HHMM")
    return hhmm


Printable = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME), AfterValidator(_printable)]
NewPassword = Annotated[
    str, Field(min_length=SHORTEST_PASSWORD, max_length=LONGEST_NAME), AfterValidator(_printable)
]
Sentence = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_printable)]
DecisionIndex = Annotated[int, Field(ge=1, le=2**31 - 1)]
Day = Annotated[date, Field(strict=False), _written(ISO_DAY, "YYYY-MM-DD")]
Instant = Annotated[
    AwareDatetime,
    Field(strict=False),
    _written(ISO_INSTANT, "YYYY-MM-DDTHH:MM:SS with an offset"),
    AfterValidator(instant),
]
Zone = Annotated[str, AfterValidator(zone)]

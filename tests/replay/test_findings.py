"""How a replay decides between an altered number and another arithmetic."""

import math

import pytest

from replay.findings import Report


def report_of(exact: int, near: int) -> Report:
    """So many numbers that agree to the bit, and so many that agree within rounding."""
    report = Report()
    for number in range(exact):
        report.close("posterior", f"number {number}", 1.5, 1.5, 1e-9)
    for number in range(near):
        report.close("posterior", f"number {exact + number}", 1.5, 1.5 * (1 + 1e-12), 1e-9)
    report.conclude()
    return report


def test_one_number_that_is_not_exact_among_many_that_are_was_altered() -> None:
    report = report_of(exact=20, near=1)
    assert report.first["posterior"].where == "number 20"


def test_where_few_are_exact_the_arithmetic_is_another() -> None:
    report = report_of(exact=20, near=10)
    assert (report.first, report.held["posterior"]) == ({}, 30)
    assert "arithmetic" in report.notes[0]


@pytest.mark.parametrize("other", [1.5 * (1 + 1e-8), math.nan, math.inf, None, [1.5, 1.5]])
def test_beyond_rounding_nothing_excuses(other: object) -> None:
    report = Report()
    assert not report.close("posterior", "a number", other, 1.5, 1e-9)
    assert report.diverged["posterior"] == 1


def test_the_first_element_that_differs_is_named() -> None:
    report = Report()
    report.compare("parquet", "a row", ["a", [1.0, math.nan, 2.0]], ["a", [1.0, math.nan, 3.0]])
    assert report.first["parquet"].where == "a row, element 1, element 2"
    assert "stored     2.0" in "\n".join(report.lines())


def test_true_is_not_one() -> None:
    report = Report()
    assert not report.compare("action", "a row", True, 1)
    assert report.compare("action", "a row", math.nan, math.nan)

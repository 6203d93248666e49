"""The report, as text and in a real browser that reaches nothing."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis import long_table, report, results, svg
from analysis.__main__ import main
from analysis.export_reader import Export
from tests.analysis.browser import Drawn, drawn, needs_browser


@pytest.fixture(scope="module")
def page(trial_export: Export) -> str:
    return report.page(trial_export)


def test_the_page_has_every_part_and_loads_nothing(page: str) -> None:
    for title in (
        "Effect by day",
        "Probabilities by state",
        "Engagement",
        "Missing outcomes",
        "Randomisation",
    ):
        assert title in page
    assert page.count("<svg") == 4
    assert not re.search(r"https?:|src=|@import|<script|url\(", page)


def test_the_tables_hold_the_numbers(page: str, trial_export: Export) -> None:
    found = long_table.load(trial_export)
    assert f"<td>{results.effects(found).estimates[0].value:.4g}</td>" in page
    for kind, count in found.missing().items():
        assert f"<td>{kind}</td><td>{count}</td>" in page


def test_tags_are_balanced(page: str) -> None:
    open_tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta",):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

    Reader().feed(page)
    assert open_tags == []


@needs_browser
def test_a_browser_draws_it(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["report", str(folder), str(out)]) == 0
    seen = drawn(out, tmp_path)
    assert seen == Drawn(out.read_text(encoding="utf-8").count("<circle"), 4)
    assert seen.points > 50


def test_ticks_are_round_and_inside() -> None:
    assert svg.ticks(0.13, 0.97) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert svg.ticks(-3, 62, 8) == pytest.approx([0, 10, 20, 30, 40, 50, 60])


def test_an_empty_plot_says_so() -> None:
    assert "Nothing to draw" in svg.plot("t", "x", [svg.Series("a", [svg.Point(1, float("nan"))])])


def test_names_are_escaped() -> None:
    assert "<b>" not in svg.plot("<b>", "<b>", [svg.Series("<b>", [svg.Point(1, 1)])])
    assert "<b>" not in report.table(("<b>",), [("<b>",)])

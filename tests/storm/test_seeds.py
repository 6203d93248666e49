"""`make storm` over several seeds: the run it stops at, and the page it writes."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.storm import __main__, duplicates
from tests.storm import kills as faults
from tests.storm.duplicates import Findings, Played
from tests.storm.kills import Plan, Storm
from tests.storm.test_checks import PLAYED, POISONED

PLAN = Plan(participants=8, points=5, kills=2, pauses=(1.0, 1.0), seed=1)
POISONED_BADLY = replace(POISONED, window="ended")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The storms that were played and their seeds, in their order; with seed 13 something is wrong."""
    storms: list[tuple[str, int]] = []

    def first(_: Any, seed: int) -> Played:
        storms.append(("duplicates", seed))
        statuses = Counter({(0, 0): 7, (200, 0): 1000 + seed, (409, 301): 3, (409, 302): 4})
        return Played(60, Findings(2000 + seed, 7, statuses), [], 1.0)

    def second(_: Any, seed: int) -> Storm:
        storms.append(("kills", seed))
        return Storm(PLAN, [PLAYED, PLAYED], POISONED if seed != 13 else POISONED_BADLY, 1.0)

    monkeypatch.setattr(duplicates, "play_and_print", first)
    monkeypatch.setattr(faults, "play_and_print", second)
    return storms


def test_each_seed_plays_both_halves_and_the_page_has_a_line_for_each(
    played: list[tuple[str, int]], tmp_path: Path
) -> None:
    page = tmp_path / "storm.md"
    assert __main__.main(["--seeds", "1", "2", "3", "--report", str(page)]) == 0
    assert played == [(half, seed) for seed in (1, 2, 3) for half in ("duplicates", "kills")]
    text = page.read_text()
    assert "with seeds 1, 2 and 3, found nothing wrong" in text
    for seed in (1, 2, 3):
        assert f"| {seed} | {2000 + seed:,} | 60 | 7 | {1000 + seed:,} | 7 | 1 | 0 |" in text
        assert f"| {seed} | 1 | 8 | 6 | 4 | 1 | 1 | failed after 6 tries | 0 |" in text
    assert "What follows is of seed 3." in text
    assert "5 jobs of the free-running study were done" in text


def test_the_first_seed_that_fails_is_the_last_and_the_page_says_why(
    played: list[tuple[str, int]], tmp_path: Path
) -> None:
    page = tmp_path / "storm.md"
    assert __main__.main(["--seeds", "1", "13", "3", "--report", str(page)]) == 1
    assert played[-1] == ("kills", 13)
    assert "- seed 13: the poisoned window is ended" in page.read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [("duplicates", 1), ("kills", 1)]),
        (["--seed", "7"], [("duplicates", 7), ("kills", 7)]),
        (["--calls", "0"], [("kills", 1)]),
        (["--points", "0", "--seed", "2"], [("duplicates", 2)]),
    ],
)
def test_one_seed_and_one_half(
    played: list[tuple[str, int]], tmp_path: Path, words: list[str], expected: list[tuple[str, int]]
) -> None:
    page = tmp_path / "storm.md"
    assert __main__.main([*words, "--report", str(page)]) == 0
    assert played == expected
    has = {
        "duplicates": "## Duplicates" in page.read_text(),
        "kills": "## Killed processes" in page.read_text(),
    }
    assert {half for half, is_there in has.items() if is_there} == {half for half, _ in expected}

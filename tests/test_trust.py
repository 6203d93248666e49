"""docs/trust.md names features, pages and tests: all of them exist."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
SOURCES = ("21 CFR 11.10(e)", "ICH E6(R3) 4.2", "SPIRIT-AI 11a", "45 CFR 164.312")


class Demand(NamedTuple):
    """A row of one of the page's tables."""

    source: str
    demand: str
    feature: str
    page: str
    test: str


def demands() -> list[Demand]:
    found, source = [], ""
    for line in PAGE.splitlines():
        if line.startswith("## "):
            source = line.removeprefix("## ").partition(": ")[0]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[0] not in {"demand", "---"}:
            found.append(Demand(source, *cells))
    return found


def test_every_source_has_its_table_and_the_page_says_what_it_lacks() -> None:
    assert {one.source for one in demands()} == set(SOURCES)
    assert len(demands()) > 35
    assert len(PAGE.partition("## What is not covered")[2]) > 1000


@pytest.mark.parametrize("one", demands(), ids=lambda one: f"{one.source}: {one.demand}"[:60])
def test_every_demand_has_a_feature_a_page_and_a_test(one: Demand) -> None:
    assert one.feature
    assert (ROOT / one.page).is_file()
    named = re.fullmatch(r"`([^:`]+)(?:::(\w+))?`", one.test)
    assert named, one.test
    path, function = ROOT / named[1], named[2]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert any(name.startswith("test_") for name in tests)
    assert function is None or function in tests

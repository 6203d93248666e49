"""The rules of this house hold, and each of them sees what it is for.

A rule is a function of tests/house. Its sample, tests/house_samples/<rule>.txt, is a small source tree that
breaks it, with the reports that the rule must give. Today's breaches are listed in tests/house/not_yet.py.
Samples are text files, so that neither pytest nor ruff nor mypy takes them for code.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.house import layers, rooms, sample, sizes, tools, words
from tests.house.not_yet import NOT_YET
from tests.house.source import House, NoFilesError

Rule = Callable[[House], Iterator[str]]
ROOT = Path(__file__).parent.parent
SAMPLES = Path(__file__).parent / "house_samples"
RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        layers.imports_follow_the_arrows,
        layers.areas_import_no_later_area,
        layers.entry_points_are_imported_by_nobody,
        layers.replay_is_imported_by_few,
        layers.the_algorithm_has_no_input_output_clock_or_log,
        layers.migrations_import_no_models,
        layers.celeryconfig_imports_nothing_of_ours,
        rooms.named_places_exist,
        rooms.layers_hold_areas,
        rooms.stems_are_not_of_the_standard_library,
        rooms.stems_are_unique_in_a_layer,
        rooms.layers_are_mirrored_by_tests,
        tools.frameworks_stay_in_their_places,
        tools.one_place_commits,
        tools.sql_stays_in_models,
        sizes.folders_stay_small,
        sizes.files_stay_short,
        sizes.functions_stay_short,
        sizes.the_median_function_is_short,
        sizes.few_private_functions_are_used_once,
        words.public_code_is_documented,
        words.no_value_is_called_told,
    )
}


@pytest.fixture(scope="module")
def house() -> House:
    """The files of this repository, read and parsed once for all rules."""
    return House.read(ROOT)


@pytest.mark.parametrize("name", RULES)
def test_the_rule_holds(house: House, name: str) -> None:
    reports, not_yet = set(RULES[name](house)), set(NOT_YET.get(name, ()))
    breaches, mended = sorted(reports - not_yet), sorted(not_yet - reports)
    assert not breaches + mended, f"breaches: {breaches}; mended, to be removed from not_yet.py: {mended}"


@pytest.mark.parametrize("name", RULES)
def test_the_sample_breaks_the_rule(name: str) -> None:
    broken, reports = sample.read(SAMPLES / f"{name}.txt")
    assert reports
    assert sorted(RULES[name](broken)) == reports


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_sees_no_files_fails(name: str) -> None:
    with pytest.raises(NoFilesError):
        list(RULES[name](House([])))


def test_every_sample_and_every_breach_of_today_belongs_to_a_rule() -> None:
    assert {path.stem for path in SAMPLES.iterdir()} == set(RULES)
    assert set(NOT_YET) <= set(RULES)

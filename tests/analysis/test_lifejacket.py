"""The bundle against the package that takes it: its own input checks, and its whole analysis."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algorithm.trial.protocol import load
from analysis import lifejacket, long_table, results, slots
from analysis.export_reader import BadExport, Export
from tests.analysis import synthetic
from tests.analysis.apart import told_by

SMALL = {"protocol": "oralytics", "hyperparameters": {"rule": "fixed"}}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """A trial of 10 participants, 4 points and one policy that was learnt."""
    folder = tmp_path_factory.mktemp("small")
    return Export(synthetic.export(folder, participants=10, points=4, every=2, document=SMALL))


@pytest.fixture(scope="module")
def told(small: Export, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What lifejacket says."""
    return told_by("in_lifejacket", small.path, folder, out=tmp_path_factory.mktemp("bundle"))


def test_its_whole_analysis_runs_with_every_check(small: Export, told: dict[str, Any]) -> None:
    """And says what `wcls` says before the correction for small samples."""
    own = results.effects(long_table.load(small), corrected=False).estimates[0]
    assert told["effect"] == pytest.approx(own.value, abs=1e-8)
    assert told["classical"] == pytest.approx(own.error, rel=1e-6)
    assert 0.3 < told["adjusted"] / told["classical"] < 3
    assert told["adjusted"] != pytest.approx(told["classical"], rel=1e-6)


def test_the_equations_of_update_and_inference_are_solved(told: dict[str, Any]) -> None:
    p, coefficients = 15, 7
    assert told["equations"] == p + p * (p + 1) // 2 + coefficients
    assert told["largest_sum"] < 1e-9


def test_a_wrong_probability_is_found_by_its_checks(told: dict[str, Any]) -> None:
    assert told["refused"]


def test_probabilities_of_a_larger_trial_follow_from_the_bundle(
    trial_export: Export, told: dict[str, Any]
) -> None:
    """Every decision of a MiWaves trial with gaps."""
    assert told["rebuilt"] >= long_table.load(trial_export).randomised.sum()
    assert told["largest_difference"] < 1e-9


def test_what_counts_is_what_counts_for_wcls(trial_export: Export) -> None:
    found = lifejacket.bundle(trial_export, ["evening"])
    assert found.columns["counted"].sum() == long_table.load(trial_export).complete.sum()
    assert len(found.moderators) == 2


def test_slots_are_in_order_and_of_one_policy() -> None:
    """Participant 1 meets policies 0, 0, 2; participant 2 meets 0, 2, then a fallback to 0, then 2."""
    found = slots.arrange(
        np.array([1, 1, 1, 2, 2, 2, 2]),
        np.array([0, 0, 2, 0, 2, 0, 2.0]),
        np.array([True, True, True, True, True, True, False]),
        ["F0", "F0", "F0", "F0", "F0", "F1", "F0"],
    )
    assert found.slot.tolist() == [0, 1, 2, 0, 2, 3, 4]
    assert found.policy.tolist() == [0, 0, 2, 2, 2]
    assert found.number.tolist() == [0, 0, 1, 1, 1]
    assert found.decided.tolist() == [True, True, True, True, True, False, False]


def test_a_trial_that_learnt_nothing_needs_no_bundle(tmp_path: Path) -> None:
    document = {"protocol": "miwaves", "algorithm": "fixed_probability"}
    folder = synthetic.export(tmp_path, participants=3, points=4, every=9, document=document)
    with pytest.raises(BadExport, match="no policy that was learnt"):
        lifejacket.bundle(Export(folder), [])


def test_the_command_names_files_that_are_there(small: Export, tmp_path: Path) -> None:
    lifejacket.write(lifejacket.bundle(small, []), tmp_path)
    command = (tmp_path / "analyze.sh").read_text(encoding="utf-8")
    names = [word.partition("=")[2] for word in command.split() if word.endswith((".pkl", ".py"))]
    assert len(names) == 7
    assert all((tmp_path / name).exists() for name in names)


@pytest.mark.parametrize(
    ("table", "column", "value", "told"),
    [
        ("policies", "participants", [], "policy 2 is a prior that came during the trial"),
        ("protocols", "document", {"protocol": "oralytics"}, "the protocol changed its features"),
    ],
)
def test_a_trial_that_began_anew_is_refused(
    tmp_path: Path, table: str, column: str, value: Any, told: str
) -> None:
    played = synthetic.play(load(synthetic.MIWAVES), 6, 12, 4, 0)
    if table == "protocols":
        played.add("protocols", id=2, document=value)
    else:
        played.tables[table][2][column] = value
    with pytest.raises(BadExport, match=told):
        lifejacket.bundle(Export(synthetic.write(tmp_path, played)), [])

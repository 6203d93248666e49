"""The commands, and the numbers of `results` in them."""

from pathlib import Path

import numpy as np
import pytest

from analysis import long_table, results
from analysis.__main__ import main
from analysis.export_reader import Export


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command prints; it must succeed."""
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_wcls(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "wcls", folder, "--moderator", "evening")
    found = results.effects(long_table.load(Export(folder)), ["evening"])
    for estimate in found.estimates:
        assert f"{estimate.value:.4f}" in text
    assert "message x evening" in text
    assert f"p = {found.joint_p:.4g}" in text


def test_a_numerator_by_state_needs_few_values(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "wcls", folder, "--moderator", "evening", "--by-state", "--control", "day")
    assert "message x evening" in text
    assert main(["wcls", str(folder), "--moderator", "act_prob", "--by-state"]) == 1
    assert "at most 20 values" in capsys.readouterr().err
    assert main(["wcls", str(folder), "--moderator", "reward"]) == 1
    assert "is null at a decision" in capsys.readouterr().err


def test_randomisation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "randomisation", folder)
    found = results.randomisation_check(long_table.load(Export(folder)))
    assert set(found.groups) == {"by policy", "by time of day", "by state"}
    for name, (counts, _) in found.groups.items():
        assert name in text
        assert sum(count.rows for count in counts) == found.overall.rows
    assert f"{found.overall.z:.3f}" in text
    assert abs(found.overall.z) < 4


def test_offpolicy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "offpolicy", folder, "0.5", "policy:3")
    assert text.count("SNIPS") == 2
    one = results.other_value(Export(folder), long_table.load(Export(folder)), "0.5")
    assert f"{one.doubly_robust.value:.4f}" in text
    assert f"effective rows {one.effective_rows:.1f}" in text


def test_vw(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "vw", folder, tmp_path / "out.dsjson")
    lines = (tmp_path / "out.dsjson").read_text(encoding="utf-8").splitlines()
    assert text.startswith(f"{len(lines)} decisions")


def test_what_cannot_be_done_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wcls", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_days(folder: Path) -> None:
    """By hand, from the table itself."""
    found = long_table.load(Export(folder))
    days = results.engagement(found)
    assert [day.day for day in days] == list(range(1, 9))
    first = found.column("study_day") == 1
    assert days[0].due == first.sum() == 40
    assert days[0].outcome == pytest.approx(np.nanmean(found.column("outcome")[first]))
    trend = results.effect_over_days(found)
    assert trend[1][1].value - trend[0][1].value == pytest.approx(trend[7][1].value - trend[6][1].value)
    assert len(results.effect_by_day(found)) == 8

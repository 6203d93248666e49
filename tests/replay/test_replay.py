"""The replay of a rehearsed trial with corrections, gaps, faults and fallbacks: nothing diverges."""

from collections import Counter
from pathlib import Path

import pytest

from replay.__main__ import main
from replay.checks import replay
from tests.replay.conftest import Rehearsed


def test_every_decision_of_the_rehearsed_trial_replays(rehearsed: Rehearsed) -> None:
    report = replay(rehearsed.folder, rehearsed.key, rehearsed.manifest_sha256)
    assert dict(report.first) == {}
    decisions = rehearsed.trial.rows("SELECT fallback_level, available FROM decisions")
    assert len(decisions) > 130
    assert set(Counter(row["fallback_level"] for row in decisions)) == {"F0", "F1", "F2", "F3", "F4"}
    assert report.held["seed"] == len(decisions) + 1
    assert report.held["action"] == report.held["reward"] + 1 == len(decisions)
    assert len(report.faults) > 4
    assert report.notes == []

"""An export that an earlier version of the service wrote is replayed by this one.

earlier_export.zip is the rehearsed trial of this folder (course.py: corrections, gaps, every rung of the
ladder, conduct, versions), played and exported by the version of 2026-11-30, before the layers had areas. To
keep another version's, play `rehearsed` of conftest.py there and zip the export's folder.
"""

import subprocess
import sys
from pathlib import Path

from local.state import CLONE

EXPORT = Path(__file__).with_name("earlier_export.zip")
MANIFEST_SHA256 = "54513364710662d59ea5e5b6710d0b7cb2c41967e7fbf4b07f4e365cb915df9a"


def test_an_earlier_export_replays_without_divergence() -> None:
    command = [sys.executable, "-m", "replay", str(EXPORT), "--sha256", MANIFEST_SHA256]
    replay = subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=False)
    assert replay.returncode == 0, replay.stdout + replay.stderr
    assert "no divergence" in replay.stdout


def test_the_replay_of_an_earlier_export_looks_at_it() -> None:
    command = [sys.executable, "-m", "replay", str(EXPORT), "--sha256", "0" * 64]
    replay = subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=False)
    assert replay.returncode != 0

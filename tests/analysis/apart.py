"""Programs that use lifejacket, run in processes of their own, since jax starts threads."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def told_by(program: str, *paths: Path, out: Path) -> dict[str, Any]:
    """What a module of this folder writes into `out`, its last argument. The test is skipped where the
    package cannot be imported."""
    command = [sys.executable, "-m", f"tests.analysis.{program}", *map(str, paths), str(out)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    if ran.returncode == 77:
        pytest.skip(f"lifejacket cannot be imported: {ran.stderr}")
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads((out / "told.json").read_text(encoding="utf-8"))
    return found

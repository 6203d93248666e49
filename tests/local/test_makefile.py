"""The commands refuse an unusable Python with one sentence before they make anything."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from local.state import CLONE

if TYPE_CHECKING:
    from pathlib import Path

TARGETS = ("demo", "up", "test", "storm", "lint")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone in which no target of the Makefile was made yet."""
    for name in ("Makefile", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(CLONE / name, tmp_path / name)
    return tmp_path


def make(clone: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run make in the clone."""
    return subprocess.run(["make", *words], cwd=clone, capture_output=True, text=True)


def pretender(folder: Path, change: str) -> Path:
    """Write a Python that is this one but for `change`, a line of code that runs before the code of `-c`."""
    program = folder / "python"
    real = f"exec '{sys.executable}'"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || {real} "$@"\n{real} -c \'{change}; exec(sys.argv[1])\' "$2"\n'
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("target", TARGETS)
def test_a_python_that_does_not_exist_gets_one_sentence(clone: Path, target: str) -> None:
    process = make(clone, target, "PYTHON=python9")
    assert process.stderr.startswith("kairos: there is no python9: install Python 3.11 or later")
    assert process.returncode == 2
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("version", ["2, 7, 18", "3, 10, 1", "3, 15, 0"])
def test_a_python_of_another_version_gets_one_sentence(clone: Path, version: str) -> None:
    python = pretender(clone, f"import sys; sys.version_info = ({version})")
    process = make(clone, "demo", f"PYTHON={python}")
    assert re.match(
        rf"kairos: Python 3\.11 to 3\.14 is needed, and .* is {version.replace(', ', '.')[:4]}",
        process.stderr,
    )
    assert not (clone / ".venv").exists()


def test_a_python_without_the_module_venv_gets_one_sentence(clone: Path) -> None:
    python = pretender(clone, 'import sys; sys.modules["ensurepip"] = None')
    process = make(clone, "demo", f"PYTHON={python}")
    assert "has no module venv (Debian and Ubuntu: apt-get install python3-venv)." in process.stderr
    assert not (clone / ".venv").exists()


def test_help_is_the_default_and_names_every_target(clone: Path) -> None:
    help_text = make(clone).stdout
    assert re.findall(r"^make (\w+) ", help_text, re.MULTILINE) == list(TARGETS)

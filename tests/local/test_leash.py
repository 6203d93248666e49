"""No child outlives its supervisor, whichever of the two mechanisms ties it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from local.embedded import Embedded
from local.state import CLONE
from tests.local.families import eventually, family_of, running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.local.families import Running


def hold(folder: Path, *words: str) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """Start a supervisor in a process of its own; return it and the pids of its children."""
    command = [sys.executable, "-m", "tests.local.holder", str(folder), *words]
    holder = subprocess.Popen(command, cwd=CLONE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    return holder, json.loads(holder.stdout.readline())


@pytest.mark.parametrize("tie", [[], ["pipe"]], ids=["kernel and pipe", "pipe alone"])
def test_kill_9_of_the_supervisor_leaves_no_process(passable: Path, tie: list[str]) -> None:
    holder, pids = hold(passable / f"killed-{len(tie)}", "servers", "family", *tie)
    with holder:
        assert {"db", "broker", "family"} == set(pids)
        assert eventually(lambda: len(family_of(pids["family"])) == 2)
        everybody = family_of(holder.pid)
        assert len(everybody) > 8  # the supervisor, its reaper, three children, grandchildren of two of them
        holder.kill()
    assert eventually(lambda: not running(everybody)), running(everybody)


def test_a_start_right_after_kill_9_waits_for_the_old_children(passable: Path) -> None:
    holder, _ = hold(passable / "again", "family")
    old = family_of(holder.pid)
    with holder:
        holder.kill()
    with Embedded(passable / "again", database=False, broker=False):
        assert not running(old)


def test_a_killed_reaper_is_replaced_and_knows_the_children(passable: Path) -> None:
    holder, pids = hold(passable / "reaper", "family", "pipe")
    with holder:
        first = reapers_of(holder.pid)
        first[0].kill()
        assert eventually(lambda: len(set(reapers_of(holder.pid)) - set(first)) == 1)
        family = family_of(pids["family"])
        holder.kill()
    assert eventually(lambda: not running(family)), running(family)


def reapers_of(pid: int) -> list[Running]:
    """Return the reapers among the children of a process."""
    return [child for child in running(family_of(pid)[1:]) if "reaper.py" in " ".join(child.cmdline())]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the child of a dead parent")
def test_the_kernel_alone_ends_the_servers_when_the_reaper_is_killed_too(passable: Path) -> None:
    holder, _ = hold(passable / "both", "servers")
    with holder:
        everybody = family_of(holder.pid)
        holder.send_signal(signal.SIGSTOP)  # so that it cannot replace the reaper
        reapers_of(holder.pid)[0].kill()
        holder.kill()
    assert eventually(lambda: not running(everybody)), running(everybody)

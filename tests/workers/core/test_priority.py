"""Whom the kernel serves first: the API before a worker and before the database's processes that serve it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local.stack import Stack
from local.state import CLONE
from tests.local.families import eventually
from tests.support.service import Service
from workers.core import priority

SHARES = Path("/proc/self/autogroup")
TURNS = Path("/proc/self/sched")
WORKER = """
import os
from pathlib import Path
from sqlalchemy import text
from models.core.session import transact
from workers.core import priority

if os.fork():
    os.wait()
else:
    priority.give_way()
    backend = transact(lambda session: session.scalar(text("SELECT pg_backend_pid()")))
    print(os.getpriority(os.PRIO_PROCESS, 0))
    for file in (f"/proc/{os.getpid()}/autogroup", f"/proc/{backend}/autogroup", "/proc/self/sched"):
        print(Path(file).read_text().strip() if Path(file).exists() else "")
"""

SHELL = ["sh", "-c", '"$@"; exit $?', "sh"]
"""Waits for what it starts, as a shell in which somebody starts a worker."""
by_sessions = pytest.mark.skipif(not SHARES.exists(), reason="this kernel does not share by sessions")


def begun(*, own_session: bool) -> str:
    """What the kernel says of the child of a worker, and of the process that serves it.

    The session is new either way: whoever runs the tests may be in none that the kernel shares by.
    """
    code = [*([] if own_session else SHELL), sys.executable, "-c", WORKER]
    done = subprocess.run(code, cwd=CLONE, capture_output=True, text=True, start_new_session=True)
    assert not done.returncode, done.stderr
    return done.stdout


def share(pid: int) -> int:
    """The niceness of a process's session."""
    return int(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])


@by_sessions
def test_a_worker_lowers_its_session_and_the_database_process_that_serves_it(service: Service) -> None:
    assert re.findall(r"autogroup-\d+ nice (\d+)", begun(own_session=True)) == [str(priority.NICENESS)] * 2


@by_sessions
def test_a_worker_in_a_session_of_others_lowers_itself_alone(service: Service) -> None:
    told = begun(own_session=False)
    assert told.splitlines()[0] == str(priority.NICENESS)
    assert re.findall(r"autogroup-\d+ nice (\d+)", told) == ["0", str(priority.NICENESS)]


@by_sessions
def test_in_the_stack_the_worker_is_lowered_and_the_api_is_not(stack: Stack) -> None:
    assert eventually(lambda: share(stack.pids["worker"]) == priority.NICENESS)
    assert share(stack.pids["api"]) == share(stack.pids["beat"]) == 0


@pytest.mark.skipif("slice" not in TURNS.read_text() if TURNS.exists() else True, reason="turns are not told")
def test_the_turns_of_a_worker_are_the_longest_that_can_be_asked_for(service: Service) -> None:
    told = re.search(r"slice\s*:\s*(\d+)\.?(\d*)", begun(own_session=True))
    assert told is not None
    assert int(told[1] + told[2]) == priority.TURN_NANOSECONDS


def test_a_process_of_another_machine_is_nobodys_child() -> None:
    assert priority.parent(os.getpid()) == os.getppid()
    assert priority.parent(2**22 + 1) == 0  # beyond the highest number of a process


def test_who_may_not_lower_a_session_and_who_has_none_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "PAUSE", 0.0)
    refusals = iter([BlockingIOError(), BlockingIOError(), PermissionError()])

    def refuse(*_: object) -> None:
        raise next(refusals)

    monkeypatch.setattr(Path, "write_text", refuse)
    priority.lower_session(os.getpid())
    assert next(refusals, None) is None

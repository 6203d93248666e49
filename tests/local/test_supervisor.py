"""The supervisor starts, restarts and stops small programs."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from local import supervisor as module
from local.errors import StackError
from local.process import Process
from local.state import State
from local.supervisor import Supervisor
from tests.local.families import FAMILY, STUBBORN, eventually, family_of, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """An open state folder."""
    state = State(tmp_path / "state")
    state.open()
    yield state
    state.close()


@pytest.fixture
def supervisor(state: State, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor with little patience."""
    monkeypatch.setattr(module, "STOP_SECONDS", 1.0)
    supervisor = Supervisor(state)
    yield supervisor
    supervisor.stop()


def python(name: str, code: str, **more: object) -> Process:
    """Return a process that runs `code`."""
    return Process(name, (sys.executable, "-c", code), dict(os.environ), **more)  # type: ignore[arg-type]


SLEEP = "import time; time.sleep(600)"


def kill(supervisor: Supervisor, name: str) -> str:
    """Kill a child and return the supervisor's sentence about it."""
    os.kill(supervisor.pids[name], signal.SIGKILL)
    while not (news := supervisor.tick()):
        time.sleep(0.01)
    return news[0]


def test_the_dead_are_started_again_after_a_growing_pause(supervisor: Supervisor) -> None:
    supervisor.start(python("one", SLEEP), python("other", SLEEP))
    other_pid = supervisor.pids["other"]
    for pause in ("0.25 s", "0.5 s", "1 s"):
        before = supervisor.pids["one"]
        assert kill(supervisor, "one").endswith(f"it is started again in {pause}")
        supervisor.tick()
        assert supervisor.pids["one"] == before
        supervisor.restart_dead()
        assert running(family_of(supervisor.pids["one"]))
        assert supervisor.pids["one"] != before
    assert supervisor.pids["other"] == other_pid


def test_the_pause_is_short_again_after_a_steady_run(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor.start(python("one", SLEEP))
    kill(supervisor, "one")
    supervisor.restart_dead()
    monkeypatch.setattr(module, "STEADY_SECONDS", 0.0)
    assert kill(supervisor, "one").endswith("0.25 s")


def test_the_pause_does_not_grow_for_ever(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.3)
    supervisor.start(python("one", SLEEP))
    kill(supervisor, "one")
    supervisor.restart_dead()
    assert kill(supervisor, "one").endswith("0.3 s")


def test_what_a_dead_child_left_behind_is_ended_before_it_is_started_again(supervisor: Supervisor) -> None:
    supervisor.start(Process("family", FAMILY, dict(os.environ)))
    leader = supervisor.pids["family"]
    assert eventually(lambda: len(family_of(leader)) == 2)
    grandchild = family_of(leader)[1]
    kill(supervisor, "family")
    assert eventually(lambda: not running([grandchild]))


def test_a_child_that_dies_at_the_start_is_reported_with_its_last_lines(supervisor: Supervisor) -> None:
    code = "import sys; [print('line', n) for n in range(30)]; sys.exit(3)"
    with pytest.raises(StackError, match=r"(?s)one exited with code 3.*line 18\n.*line 29$") as caught:
        supervisor.start(python("one", code, ready=lambda: False))
    assert "line 17" not in str(caught.value)


def test_a_child_that_never_answers_is_reported(supervisor: Supervisor) -> None:
    with pytest.raises(StackError, match="one is not ready after 0 s"):
        supervisor.start(python("one", SLEEP, ready=lambda: False), seconds=0.2)


def test_a_program_that_does_not_exist_is_reported(supervisor: Supervisor) -> None:
    with pytest.raises(StackError, match=r"one cannot be started \(.*No such file"):
        supervisor.start(Process("one", ("/nowhere/program",), {}))


def test_the_last_started_is_stopped_first_and_each_by_its_own_signal(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    signals = tmp_path / "signals"
    code = (
        "import pathlib, signal, sys, time\n"
        "def note(number, frame):\n"
        "    with open({path!r}, 'a') as file: file.write('{name} %s ' % signal.Signals(number).name)\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, note); signal.signal(signal.SIGINT, note)\n"
        "pathlib.Path({path!r} + '-{name}').touch(); time.sleep(600)"
    )
    for name, stop_signal in (("first", signal.SIGINT), ("second", signal.SIGTERM)):
        ready = (tmp_path / f"signals-{name}").exists
        text = code.format(path=str(signals), name=name)
        supervisor.start(python(name, text, ready=ready, stop_signal=stop_signal))
    supervisor.stop()
    assert signals.read_text() == "second SIGTERM first SIGINT "


def test_what_ignores_its_signal_is_killed_with_its_family(supervisor: Supervisor) -> None:
    supervisor.start(Process("family", FAMILY, dict(os.environ)), python("one", STUBBORN))
    assert eventually(lambda: len(family_of(supervisor.pids["family"])) == 2)
    everybody = [process for pid in supervisor.pids.values() for process in family_of(pid)]
    supervisor.stop()
    assert not running(everybody)


def test_the_number_of_a_dead_child_is_not_signalled_again(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor.start(python("one", SLEEP))
    dead = supervisor.pids["one"]
    kill(supervisor, "one")
    signalled: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, _: signalled.append(group))
    supervisor.stop()
    assert dead not in signalled


def test_a_command_s_output_is_returned_and_not_logged(supervisor: Supervisor) -> None:
    assert supervisor.output(python("one", "print('a secret')")) == "a secret\n"
    assert not list(supervisor.logs.glob("one*"))


def test_a_command_that_fails_is_reported_with_its_last_lines(supervisor: Supervisor) -> None:
    with pytest.raises(StackError, match=r"one exited with code 1\n  no$"):
        supervisor.output(python("one", "import sys; sys.exit('no')"))


def test_a_foreground_process_is_waited_for_while_the_children_are_tended(supervisor: Supervisor) -> None:
    supervisor.start(python("one", SLEEP))
    before = supervisor.pids["one"]
    os.kill(before, signal.SIGKILL)
    news: list[str] = []
    code = supervisor.foreground(python("front", "import sys, time; time.sleep(1); sys.exit(7)"), news.append)
    assert code == 7
    assert len(news) == 1
    assert supervisor.pids["one"] != before


def test_one_that_was_ready_and_died_before_the_others_were_ends_the_start(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    slow_was_asked = tmp_path / "slow_was_asked"
    until_slow_was_asked = (
        f"import os, time\nwhile not os.path.exists({str(slow_was_asked)!r}): time.sleep(0.01)\n"
        "raise SystemExit(3)"
    )

    def never() -> bool:
        slow_was_asked.touch()
        return False

    with pytest.raises(StackError, match=r"^short exited with code 3"):
        supervisor.start(
            python("short", until_slow_was_asked), python("slow", SLEEP, ready=never), seconds=20
        )

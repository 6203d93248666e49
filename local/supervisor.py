"""The supervisor: starts processes, restarts dead ones after a growing pause, stops all in reverse order."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from signal import SIGKILL, Signals
from typing import TYPE_CHECKING

from local.errors import StackError
from local.leash import Leash

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from local.process import Process
    from local.state import State

START_SECONDS = 90.0
STOP_SECONDS = 8.0
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
STEADY_SECONDS = 60.0  # a process that lived so long has recovered: its pause begins small again
SHOWN_LINES = 12


@dataclass
class Child:
    """A process and its present run; `due` is when a dead one is started again (monotonic seconds)."""

    process: Process
    run: subprocess.Popen[bytes]
    started: float
    pause: float = FIRST_PAUSE
    due: float | None = None


class Supervisor:
    """The children of one state folder, which must be open."""

    def __init__(self, state: State, *, kernel_tie: bool = True) -> None:
        self._state = state
        self._leash = Leash(state.lock, kernel=kernel_tie)
        self._children: dict[str, Child] = {}
        self._tiers: list[list[Child]] = []

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each child's present run, or of its last one while it waits for the next."""
        return {name: child.run.pid for name, child in self._children.items()}

    @property
    def logs(self) -> Path:
        """The folder of the children's logs."""
        return self._state.log("").parent

    def start(self, *processes: Process, seconds: float = START_SECONDS) -> None:
        """Start processes side by side and wait until each is ready. Raises StackError if one is not.

        Processes that are started in one call are stopped side by side too.
        """
        self._tiers.append([])
        for process in processes:
            child = Child(process, self._spawn(process), time.monotonic())
            self._children[process.name] = child
            self._tiers[-1].append(child)
        self._wait_ready(self._tiers[-1], seconds)

    def _spawn(self, process: Process) -> subprocess.Popen[bytes]:
        with self._state.log(process.name).open("ab") as log:
            try:
                return self._leash.spawn(process, log.fileno())
            except OSError as error:
                raise StackError(f"{process.name} cannot be started ({error}).") from error

    def _wait_ready(self, children: list[Child], seconds: float) -> None:
        """Wait until each child has been ready once. Raises StackError if one dies meanwhile."""
        deadline, waiting = time.monotonic() + seconds, list(children)
        while waiting:
            waiting = [child for child in waiting if not child.process.ready()]
            for child in children:
                if child.run.poll() is not None:
                    raise StackError(f"{self._describe_end(child)}\n{self._last_lines(child.process)}")
            if waiting and time.monotonic() > deadline:
                slow = waiting[0].process
                raise StackError(f"{slow.name} is not ready after {seconds:.0f} s\n{self._last_lines(slow)}")
            time.sleep(0.02)

    def run(self, process: Process, seconds: float = START_SECONDS) -> None:
        """Run a process to its end. Raises StackError with its last log lines unless it exits with 0."""
        child = Child(process, self._spawn(process), time.monotonic())
        try:
            deadline = time.monotonic() + seconds
            while child.run.poll() is None:
                if time.monotonic() > deadline:
                    raise StackError(f"{process.name} took over {seconds:.0f} s\n{self._last_lines(process)}")
                time.sleep(0.02)
            if child.run.returncode:
                raise StackError(f"{self._describe_end(child)}\n{self._last_lines(process)}")
        finally:
            self._finish(child.run)

    def output(self, process: Process, seconds: float = START_SECONDS) -> str:
        """Run a process and return what it writes. Raises StackError with its end unless it exits with 0."""
        # through a pipe, not the log: what the process writes may be a password
        run = self._leash.spawn(process, subprocess.PIPE)
        try:
            text = run.communicate(timeout=seconds)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            raise StackError(f"{process.name} took over {seconds:.0f} s.") from None
        finally:
            self._finish(run)
        if run.returncode:
            raise StackError(f"{process.name} exited with code {run.returncode}\n{_last_lines(text)}")
        return text

    def foreground(self, process: Process, say: Callable[[str], None]) -> int:
        """Run a process that writes to our output, tend the children, and return its exit code."""
        run = self._leash.spawn(process, None)
        try:
            self.watch(lambda: run.poll() is not None, say)
            return run.returncode
        finally:
            self._finish(run)

    def tick(self) -> list[str]:
        """Look at each child once: note its death, or restart it when due. Return a sentence per death."""
        self._leash.restart_dead_reaper()
        news = []
        for child in self._children.values():
            if child.due is None and child.run.poll() is not None:
                news.append(self._note_death(child))
            elif child.due is not None and time.monotonic() >= child.due:
                child.run, child.started, child.due = self._spawn(child.process), time.monotonic(), None
        return news

    def _note_death(self, child: Child) -> str:
        self._finish(child.run)
        if time.monotonic() - child.started > STEADY_SECONDS:
            child.pause = FIRST_PAUSE
        child.due = time.monotonic() + child.pause
        news = f"{self._describe_end(child)}; it is started again in {child.pause:g} s"
        child.pause = min(2 * child.pause, LONGEST_PAUSE)
        return news

    def restart_dead(self, seconds: float = START_SECONDS) -> list[str]:
        """Start dead children again, wait until all are ready, and return a sentence for each death."""
        deadline = time.monotonic() + seconds
        news = self.tick()
        while not all(child.due is None and child.process.ready() for child in self._children.values()):
            if time.monotonic() > deadline:
                raise StackError(f"Not every child is ready after {seconds:.0f} s: {'; '.join(news)}")
            time.sleep(0.02)
            news += self.tick()
        return news

    def watch(self, is_over: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Tend the children until `is_over` returns True, and `say` what happens to them."""
        while not is_over():
            for sentence in self.tick():
                say(sentence)
            time.sleep(0.1)

    def _describe_end(self, child: Child) -> str:
        code = child.run.returncode
        how = f"was ended by {Signals(-code).name}" if code < 0 else f"exited with code {code}"
        return f"{child.process.name} {how} (log: {self._state.log(child.process.name)})"

    def _last_lines(self, process: Process) -> str:
        return _last_lines(self._state.log(process.name).read_text(errors="replace"))

    def _finish(self, run: subprocess.Popen[bytes]) -> None:
        """Kill the rest of the child's process group, wait for the child, and take it off the leash."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(run.pid, SIGKILL)
        run.wait()
        self._leash.release(run.pid)

    def stop(self) -> None:
        """Stop every child, the last started first; a child that does not end in STOP_SECONDS is killed."""
        while self._tiers:
            # a child with a due time is dead: its number may be another process's by now
            tier = [child for child in self._tiers.pop() if child.due is None]
            for child in tier:
                child.run.send_signal(child.process.stop_signal)
            deadline = time.monotonic() + STOP_SECONDS
            while any(child.run.poll() is None for child in tier) and time.monotonic() < deadline:
                time.sleep(0.02)
            for child in tier:
                self._finish(child.run)
        self._children = {}
        self._leash.close()


def _last_lines(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines()[-SHOWN_LINES:])

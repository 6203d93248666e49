"""The progress of the rehearsal, on a terminal and in a file."""

import io
import sys

import pytest

from rehearsal.progress import progress


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(4, "points") as step:
        for _ in range(4):
            step(1)
    assert "100%" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()


def test_a_file_gets_a_line_at_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(200, "points") as step:
        for _ in range(200):
            step(1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [f"points: {n} of 200" for n in range(20, 201, 20)]

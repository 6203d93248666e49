"""Backups of the whole database: one file that says what it is, and its restore into an empty database.

The file is a zip of `manifest.json` and `database.dump`, which is in pg_dump's custom format. Its secrets are
encrypted as in the database: it is of use only with KAIROS_SECRETS_KEYS, of which it holds hashes. The
store's objects are not in it: a copy of the store that is made after it has all that its rows name.
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Generator, Iterator
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
from models.core import objects
from models.core.encryption import fingerprint
from models.core.objects import Store, Stored
from settings import settings
from version import code_version

FORMAT = "kairos-backup-1"
DUMP, MANIFEST = "database.dump", "manifest.json"
AREA = "backups"  # of their keys, which go on with their time in this form
TIME = "%Y%m%dT%H%M%SZ"
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


class Archive:
    """A backup that is written now; `manifest` is filled in when the last of its chunks was taken."""

    def __init__(self) -> None:
        self.facts = Facts()
        if self.facts.revision is None:
            raise click.ClickException("there is nothing to back up: the database is not migrated")
        self.command: list[Path | str] = [
            pg_programs.program("pg_dump", self.facts.server),
            "--format=custom",
            "--no-owner",
            "--no-privileges",
            pg_programs.database(),
        ]
        self.manifest: dict[str, Any] = {}

    def chunks(self) -> Generator[bytes]:
        """The bytes of the file. Raises ClickException where pg_dump fails."""
        tail, digest = _Tail(), hashlib.sha256()
        with zipfile.ZipFile(tail, "w", zipfile.ZIP_STORED) as archive:
            with (
                pg_programs.running(self.command) as process,
                archive.open(DUMP, "w", force_zip64=True) as target,
            ):
                while block := pg_programs.pipe(process.stdout).read(BLOCK):
                    digest.update(block)
                    target.write(block)
                    yield tail.take()
            self.manifest = {
                "format": FORMAT,
                "created_at": datetime.now(UTC).isoformat(),
                "server": self.facts.server,
                "revision": self.facts.revision,
                "code_version": code_version(),
                "secrets_keys": [fingerprint(key) for key in settings().secrets_keys],
                "sha256": digest.hexdigest(),
            }
            archive.writestr(MANIFEST, json.dumps(self.manifest, indent=1))
        yield tail.take()


class _Tail(io.RawIOBase):
    """A file that zipfile cannot seek in, and that forgets what was taken out of it."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.parts.append(bytes(data))
        return len(self.parts[-1])

    def take(self) -> bytes:
        taken = b"".join(self.parts)
        self.parts.clear()
        return taken


@click.command("backup", cls=Command)
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--list", "listing", is_flag=True, help="Write nothing: list the backups in the object store.")
@with_appcontext
def backup(file: Path | None, listing: bool) -> None:
    """Write the whole database to FILE while the service goes on.

    Without FILE it goes into the object store (KAIROS_STORE), and the oldest ones there beyond
    KAIROS_BACKUP_KEEP are deleted. The other objects of the store are in no backup: copy them too, after it.
    """
    place = objects.store()
    try:
        if listing:
            print_json(backups=[_described(each) for each in place.listed(AREA)])
            return
        if file is not None:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        archive = Archive()
        if file is not None:
            size = _write(file, archive)
            place_of: dict[str, Any] = {"file": str(file)}
        else:
            key = objects.new_key(AREA, f"{datetime.now(UTC):{TIME}}")
            with closing(archive.chunks()) as chunks:  # closing kills pg_dump where the store refuses
                size = place.put(key, chunks).size
            place_of = {"key": key, "deleted": _expire(place)}
    except OSError as error:
        where = "into the store" if file is None else file
        raise click.ClickException(f"cannot write {where}: {error.strerror}") from None
    without = f"the objects in {settings().store}: copy them too, after this backup"
    print_json(**place_of, bytes=size, not_in_it=without, **archive.manifest)


def _described(each: Stored) -> dict[str, Any]:
    """A stored backup as `backup --list` prints it."""
    written_at = datetime.strptime(each.key.split("/")[1], TIME).replace(tzinfo=UTC)
    return {"key": each.key, "bytes": each.size, "created_at": written_at.isoformat()}


def _expire(place: Store) -> list[str]:
    """Delete the oldest backups beyond those that are kept, and what killed ones left; the keys deleted."""
    old = sorted(each.key for each in place.listed(AREA))[: -settings().backup_keep]
    for key in old:
        place.delete(key)
    place.sweep_parts(AREA, datetime.now(UTC) - objects.ORPHAN_AGE)
    return old


def _write(path: Path, archive: Archive) -> int:
    """Write a backup under another name first: what has the name is whole. The file's size in bytes."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        unfinished.touch(mode=0o600)
        with unfinished.open("wb") as file, closing(archive.chunks()) as chunks:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path.stat().st_size


@click.command("restore", cls=Command)
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--stored", metavar="KEY", help="A backup in the object store: `backup --list` has its key.")
@click.option("--replace", is_flag=True, help="Delete what is in the database first, for good.")
@with_appcontext
def restore(file: Path | None, stored: str | None, replace: bool) -> None:
    """Bring the database to what it was when FILE, or the backup under KEY, was written.

    Nothing else may use the database meanwhile.
    """
    if (file is None) == (stored is None):
        raise click.UsageError("name either a FILE or a --stored KEY")
    name = stored or str(file)
    try:
        with _opened(file, stored) as source, zipfile.ZipFile(source) as archive:
            manifest = _checked(archive, name)
            _refuse(manifest, Facts(), replace)
            if replace:
                _empty()
            _fill(archive, Facts().server)
    except zipfile.BadZipFile:
        raise click.ClickException(f"{name} is no backup, or not a whole one") from None
    except OSError as error:
        raise click.ClickException(f"cannot read {name}: {error.strerror}") from None
    print_json(**{"file" if stored is None else "key": name}, **manifest)


@contextmanager
def _opened(file: Path | None, stored: str | None) -> Iterator[IO[bytes]]:
    """The backup as a file that can be sought in: one of the store is fetched into a temporary file first."""
    if file is not None:
        with file.open("rb") as source:
            yield source
        return
    try:
        chunks = objects.store().read(stored or "")
    except ValueError:
        raise click.ClickException(f"{stored} is not the key of a backup") from None
    with tempfile.TemporaryFile() as copy:
        copy.writelines(chunks)
        yield copy


def _checked(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
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
        raise click.ClickException(f"{name} is no backup, or not a whole one") from None
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
    with pg_programs.running(command) as process, archive.open(DUMP) as source:
        try:
            shutil.copyfileobj(source, pg_programs.pipe(process.stdin), BLOCK)
        except BrokenPipeError:
            return  # it ended before it had read all: what it says then tells why

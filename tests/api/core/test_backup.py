"""The restore drill: a rehearsed trial is backed up, restored into a new database, goes on and replays."""

import json
import random
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet

from api.core import auth, pg_programs
from local.embedded import Embedded
from models.core import accounts, objects, studies
from models.core.encryption import fingerprint
from models.core.session import transact
from replay.checks import replay
from tests.api.core.test_cli import sentence
from tests.replay.rehearsed import SETTINGS, Rehearsal
from tests.support.backend import serving
from tests.support.configured import configured
from tests.support.service import Service
from tests.support.study import Study, begin, cursor
from workers.trial import windows as windows_task

PEOPLE = 6


class Saved(NamedTuple):
    """A trial that stood still while its backup was written, and the file."""

    url: str
    study: str
    key: str
    file: Path
    printed: dict[str, object]


@pytest.fixture(scope="module")
def saved(embedded: Embedded, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    """A rehearsed trial with corrections, gaps, a refit and an open window; and its backup."""
    name, key = f"saved_{uuid4().hex}", Fernet.generate_key().decode()
    embedded.postgres.create_database(name, template=migrated)
    url, file = embedded.database_url(name), tmp_path_factory.mktemp("backups") / "trial.backup"
    with configured(embedded, url, KAIROS_SECRETS_KEYS=key) as service, serving() as back_end:
        study = begin(service, *SETTINGS, "envelope.daily_cap=9", ema_url=back_end.url)
        rehearsal = Rehearsal(study, back_end, random.Random(3))
        people = list(rehearsal.enrol())[:PEOPLE]
        rehearsal.play(people, 1, 4)
        rehearsal.fit()
        study.decide(people[0], decision_index=5)
        printed = service.command("backup", str(file))
        yield Saved(url, study.name, key, file, printed)
    embedded.postgres.drop_database(name)


@pytest.fixture
def empty(embedded: Embedded) -> Iterator[str]:
    """The address of a database with nothing in it."""
    name = f"empty_{uuid4().hex}"
    embedded.postgres.create_database(name)
    yield embedded.database_url(name)
    embedded.postgres.drop_database(name)


def rows(url: str) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    with cursor(url) as found:
        found.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
        names = [row["tablename"] for row in found.fetchall()]
        tables = {}
        for name in names:
            found.execute(f"SELECT t::text AS row FROM {name} t ORDER BY 1")
            tables[name] = [row["row"] for row in found.fetchall()]
    return tables


def tokens(service: Service, study: str) -> Study:
    """The study as its accounts see it in this process."""
    found = transact(lambda session: {client.role: client for client in accounts.everyone(session)})
    made = {role: auth.token_for(client, datetime.now(UTC)) for role, client in found.items()}
    return Study(service, study, next(iter(found.values())).study_id, made)


def test_a_restored_trial_is_the_same_goes_on_and_replays(
    embedded: Embedded, saved: Saved, empty: str, tmp_path: Path
) -> None:
    with configured(embedded, empty, KAIROS_SECRETS_KEYS=saved.key) as service:
        printed = service.command("restore", str(saved.file))
        assert printed["sha256"] == saved.printed["sha256"]
        assert rows(empty) == rows(saved.url)
        study = tokens(service, saved.study)
        repeat = study.decide("person-0", decision_index=5)
        study.end("person-0")
        following = study.decide("person-0")
        assert (following["decision_index"], following["fallback_level"]) == (6, "F0")
        assert following["rid"] > repeat["rid"]
        windows_task.close_stale()
        folder = tmp_path / "export"
        service.command("export", saved.study, str(folder), "--account", f"researcher@{saved.study}")
        key = bytes(transact(lambda session: studies.everyone(session)[0].study_key))
    report = replay(folder, key)
    assert not report.first, "\n".join(report.lines())
    assert report.held["seed"] > PEOPLE * 3


def test_a_restore_spares_what_is_there_unless_it_is_told(
    embedded: Embedded, saved: Saved, fresh_database: str
) -> None:
    with configured(embedded, fresh_database, KAIROS_SECRETS_KEYS=saved.key) as service:
        before = rows(fresh_database)
        assert "is not empty" in sentence(service, "restore", str(saved.file))
        assert rows(fresh_database) == before
        service.command("restore", str(saved.file), "--replace")
        assert rows(fresh_database) == rows(saved.url)


def test_without_the_key_of_its_secrets_a_backup_is_not_restored(
    embedded: Embedded, saved: Saved, empty: str
) -> None:
    other = Fernet.generate_key().decode()
    with configured(embedded, empty, KAIROS_SECRETS_KEYS=other) as service:
        assert "none of the KAIROS_SECRETS_KEYS" in sentence(service, "restore", str(saved.file))
        assert rows(empty) == {}
    with zipfile.ZipFile(saved.file) as archive:
        manifest = archive.read("manifest.json").decode()
        held = manifest.encode() + archive.read("database.dump")
    assert json.loads(manifest)["secrets_keys"] == [fingerprint(saved.key)]
    assert saved.key.encode() not in held
    assert saved.file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["cut", "bit", "text", "other", "gone"])
def test_half_a_backup_is_not_restored(
    embedded: Embedded, saved: Saved, empty: str, tmp_path: Path, damage: str
) -> None:
    file, whole = tmp_path / "damaged.backup", saved.file.read_bytes()
    place = len(whole) // 2
    if damage == "other":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("manifest.json", '{"format": "another"}')
    elif damage != "gone":
        flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        file.write_bytes({"cut": whole[:place], "bit": flipped, "text": b"a backup"}[damage])
    with configured(embedded, empty, KAIROS_SECRETS_KEYS=saved.key) as service:
        said = sentence(service, "restore", str(file))
        assert "is no backup, or not a whole one" in said or "cannot read" in said
        assert rows(empty) == {}


EACH = pytest.mark.parametrize("stored", ["folder", "s3"], indirect=True)


@pytest.fixture
def stored(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a service whose store is a folder, or what the test asks for."""
    if getattr(request, "param", "folder") == "s3":
        return dict(request.getfixturevalue("swift").settings())
    return {"KAIROS_STORE": (tmp_path / "objects").as_uri()}


def old_backups(days: range) -> list[str]:
    """Put something in the place of backups of these days of January 2026; its keys."""
    keys = [objects.new_key("backups", f"2026010{day}T000000Z") for day in days]
    for key in keys:
        objects.store().put(key, [b"old"])
    return keys


@EACH
def test_backups_are_kept_as_many_as_told(embedded: Embedded, saved: Saved, stored: dict[str, str]) -> None:
    kept = {"KAIROS_BACKUP_KEEP": "3", "KAIROS_SECRETS_KEYS": saved.key, **stored}
    with configured(embedded, saved.url, **kept) as service:
        old, mine = old_backups(range(1, 5)), objects.new_key("exports", 1)
        objects.store().put(mine, [b"of somebody else"])
        printed = service.command("backup")
        assert printed["deleted"] == old[:2]
        assert [each.key for each in objects.store().listed("backups")] == [*old[2:], printed["key"]]
        assert objects.store().size(mine)
        assert (
            printed["not_in_it"]
            == f"the objects in {stored['KAIROS_STORE']}: copy them too, after this backup"
        )
        listed = service.command("backup", "--list")["backups"]
        assert [(each["key"], each["bytes"]) for each in listed[2:]] == [(printed["key"], printed["bytes"])]
        assert listed[0]["created_at"] == "2026-01-03T00:00:00+00:00"


@EACH
def test_a_backup_in_the_store_is_restored(
    embedded: Embedded, saved: Saved, empty: str, stored: dict[str, str]
) -> None:
    with configured(embedded, saved.url, KAIROS_SECRETS_KEYS=saved.key, **stored) as service:
        printed = service.command("backup")
    with configured(embedded, empty, KAIROS_SECRETS_KEYS=saved.key, **stored) as service:
        assert service.command("restore", "--stored", printed["key"])["sha256"] == printed["sha256"]
        assert rows(empty) == rows(saved.url)
        missing = objects.new_key("backups", "20260101T000000Z")
        assert "there is no such object" in sentence(service, "restore", "--stored", missing)
        assert "is not the key of a backup" in sentence(service, "restore", "--stored", "../../etc/passwd")


def test_a_backup_that_fails_leaves_the_older_ones_alone(
    embedded: Embedded, saved: Saved, stored: dict[str, str], tmp_path: Path
) -> None:
    kept = {"KAIROS_BACKUP_KEEP": "1", "KAIROS_SECRETS_KEYS": saved.key, **stored}
    with configured(embedded, saved.url, **kept, PG_BIN=str(tmp_path)) as service:
        old = old_backups(range(1, 2))
        assert "needs a pg_dump" in sentence(service, "backup")
        assert [each.key for each in objects.store().listed("backups")] == old
        assert "cannot write /proc" in sentence(service, "backup", "/proc/none/x.backup")
    with configured(embedded, embedded.database_url("postgres")) as service:
        assert "not migrated" in sentence(service, "backup", str(tmp_path / "x"))


@EACH
def test_a_pg_dump_that_dies_leaves_no_backup(
    embedded: Embedded, saved: Saved, stored: dict[str, str], tmp_path: Path
) -> None:
    program = tmp_path / "pg_dump"
    program.write_text(
        "#!/bin/sh\n[ $1 = --version ] && echo 'pg_dump (PostgreSQL) 99.1' && exit\n"
        "head -c 3000000 /dev/zero; echo 'the disk broke' >&2; exit 1\n"
    )
    program.chmod(0o755)
    kept = {"KAIROS_SECRETS_KEYS": saved.key, "PG_BIN": str(tmp_path), **stored}
    with configured(embedded, saved.url, **kept) as service:
        assert "pg_dump failed: the disk broke" in sentence(service, "backup")
        assert list(objects.store().listed("backups")) == []


def test_a_store_that_is_away_is_said_to_be(embedded: Embedded, saved: Saved) -> None:
    away = {"KAIROS_STORE": "s3://bucket", "KAIROS_STORE_ENDPOINT": "http://127.0.0.1:9"}
    away |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "KAIROS_SECRETS_KEYS": saved.key}
    with configured(embedded, saved.url, **away) as service:
        for words in (
            ["backup"],
            ["backup", "--list"],
            ["restore", "--stored", objects.new_key("backups", 1)],
        ):
            assert "the object store cannot be used" in sentence(service, *words)


def test_the_disk_that_is_full_leaves_no_half_backup(
    embedded: Embedded, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile._ZipWriteFile, "write", full)  # type: ignore[attr-defined]
    with configured(embedded, saved.url, KAIROS_SECRETS_KEYS=saved.key) as service:
        assert "No space left on device" in sentence(service, "backup", str(tmp_path / "x.backup"))
    assert list(tmp_path.iterdir()) == []


def test_an_older_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (14, 17, 16):
        folder = tmp_path / str(version)
        folder.mkdir()
        program = folder / "pg_dump"
        program.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}.3'\n")
        program.chmod(0o755)
    found = [tmp_path / str(version) / "pg_dump" for version in (14, 17, 16)]
    monkeypatch.setattr(pg_programs, "_candidates", lambda _name: iter(found))
    assert pg_programs.program("pg_dump", 15) == tmp_path / "16" / "pg_dump"
    with pytest.raises(Exception, match="needs a pg_dump of that version or later"):
        pg_programs.program("pg_dump", 18)

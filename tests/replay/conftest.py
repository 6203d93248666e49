"""One rehearsed trial, played once and exported, for all tests of the replay."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from local.embedded import Embedded
from local.ports import free_port
from local.stack import environment
from models.core import studies
from models.core.session import transact
from replay.findings import Report
from replay.format import reading as files
from replay.format.long_table import Row
from tests.replay.course import play
from tests.replay.rehearsed import SETTINGS
from tests.support.backend import serving
from tests.support.service import running
from tests.support.study import Study, begin


class Rehearsed(NamedTuple):
    """The trial, which goes on standing in its database, its key, and its export."""

    study: Study
    key: bytes
    folder: Path
    manifest_sha256: str


@pytest.fixture(scope="package")
def rehearsed(
    embedded: Embedded, migrated: str, broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rehearsed]:
    """The rehearsed trial."""
    embedded.postgres.create_database("rehearsed", template=migrated)
    url, objects = embedded.database_url("rehearsed"), tmp_path_factory.mktemp("objects")
    told = environment(embedded.state, url, broker_url, free_port())
    with running(told | {"KAIROS_STORE": objects.as_uri()}) as service, serving() as back_end:
        study = begin(service, *SETTINGS, ema_url=back_end.url)
        play(study, back_end)
        folder = tmp_path_factory.mktemp("export") / study.name
        told = service.command("export", study.name, str(folder), "--account", f"researcher@{study.name}")
        key = transact(lambda session: studies.by_id(session, study.study_id).study_key)
        yield Rehearsed(study, key, folder, str(told["manifest_sha256"]))
    embedded.postgres.drop_database("rehearsed")


@pytest.fixture(scope="package")
def tables(rehearsed: Rehearsed) -> dict[str, list[Row]]:
    """The tables of the rehearsed trial, as they are read from its export."""
    facts = files.manifest(rehearsed.folder)
    return {name: files.table(rehearsed.folder, name, facts, Report()) for name in facts.tables}

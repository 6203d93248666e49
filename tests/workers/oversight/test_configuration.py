"""Settings and keys that change with a restart: noted once in every study's chain, and as fingerprints."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from local.embedded import Embedded
from models.core import audit
from models.core.encryption import fingerprint
from models.core.session import transact
from models.oversight.acts import OversightAct
from settings import settings
from tests.support.configured import configured
from tests.support.study import Study
from workers.oversight import configuration

OLD, NEW = "an old key of thirty-two letters....", "the new key of thirty-two letters..."


@pytest.fixture(autouse=True)
def restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has noted nothing yet."""
    monkeypatch.setattr(configuration, "_noted", set())


def noted(study_id: int = 1) -> list[audit.AuditEntry]:
    return transact(audit.listed, study_id, OversightAct.CONFIGURATION, 0, 100)


def restart(monkeypatch: pytest.MonkeyPatch, **changed: str) -> None:
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    monkeypatch.setattr(configuration, "_noted", set())
    configuration.note_changes()


def test_a_rotated_signing_key_leaves_a_row_in_every_study(
    embedded: Embedded, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with configured(embedded, fresh_database, KAIROS_SIGNING_KEYS=OLD) as service:
        for name in ("one", "two"):
            service.command("study", "create", name, "--ema-url", "http://127.0.0.1:9/")
        configuration.note_changes()
        restart(monkeypatch, KAIROS_SIGNING_KEYS=f"{NEW},{OLD}")
        restart(monkeypatch, KAIROS_SIGNING_KEYS=NEW)
        for study_id in (1, 2):
            first, second, third = noted(study_id)
            assert first.before is None
            assert (second.before, third.before) == (first.after, second.after)
            keys = [one.after["signing_keys"] for one in (first, second, third) if one.after]
            assert [len(key) for key in keys] == [1, 2, 1]
            assert keys[1] == keys[2] + keys[0]
            assert {one.role for one in (first, second, third)} == {audit.SERVICE}
            assert transact(partial(audit.faults, study_id=study_id)) == []
        told = json.dumps([one.after for one in noted()])
        assert OLD not in told
        assert NEW not in told


@pytest.mark.parametrize(
    ("name", "value"),
    [("KAIROS_TWO_PERSON", "true"), ("KAIROS_REGISTRATION", "closed"), ("KAIROS_OUTGOING_HOSTS", "a.org")],
)
def test_settings_that_a_trial_hangs_on_are_noted(
    only_study: Study, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    configuration.note_changes()
    restart(monkeypatch, **{name: value})
    before, after = [one.after for one in noted()]
    assert before is not None
    assert after is not None
    assert [key for key in after if after[key] != before[key]] == [name.removeprefix("KAIROS_").lower()]


def test_nothing_new_leaves_no_row_and_a_new_study_gets_one(
    only_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        restart(monkeypatch, KAIROS_API_PROCESSES="3")
    only_study.service.command("study", "create", "later", "--ema-url", "http://127.0.0.1:9/")
    configuration.note_changes()
    assert [len(noted(study_id)) for study_id in (1, 2)] == [1, 1]


def test_workers_that_start_together_write_one_row(only_study: Study) -> None:
    def start(_: int) -> None:
        transact(configuration.note_in_study, 1)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(start, range(6)))
    assert len(noted()) == 1


def test_no_secret_and_no_other_studys_host_is_among_what_is_told(
    only_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAIROS_OUTGOING_HOSTS", "one.example.org,another.example.org")
    settings.cache_clear()
    told: dict[str, Any] = configuration.configuration()
    text = json.dumps(told)
    secrets = (*settings().signing_keys, *settings().secrets_keys, settings().database_url)
    assert not [secret for secret in (*secrets, *settings().outgoing_hosts) if secret in text]


def test_a_fingerprint_tells_keys_apart_and_is_no_quick_digest_that_could_be_guessed_from() -> None:
    prints = [fingerprint(key) for key in (OLD, NEW, OLD)]
    assert prints[0] == prints[2] != prints[1]
    assert {len(one) for one in prints} == {16}
    quick = {hashlib.new(name, OLD.encode()).hexdigest()[:16] for name in ("md5", "sha1", "sha256", "sha512")}
    assert not quick & set(prints)

"""The operator's commands: one JSON object where they succeed, one sentence where they do not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet, InvalidToken

import models
from local.embedded import Embedded
from models.core import studies
from models.core.encryption import is_encrypted
from models.core.session import transact
from settings import settings
from tests.support.configured import configured
from tests.support.service import Service
from tests.support.study import Study, cursor

ROOT = Path(__file__).parents[3]
URL = ("--ema-url", "https://app.example.org/ema_study")
FAILURES = {
    ("study", "create", "", *URL): "must be 1 to 128 printable characters",
    ("study", "create", "a\nb", *URL): "must be 1 to 128 printable characters",
    ("study", "create", "x" * 129, *URL): "must be 1 to 128 printable characters",
    ("study", "create", "x"): "Missing option '--ema-url'",
    ("study", "create", "x", "--ema-url", "app.example.org"): "is not an http:// or https:// URL",
    ("study", "create", "x", "--ema-url", "https://"): "is not an http:// or https:// URL",
    ("study", "create", "x", "--ema-url", "https://[::1"): "is not an http:// or https:// URL",
    ("study", "create", "x", "--ema-url", "https://a:b/"): "is not an http:// or https:// URL",
    ("study", "create", "x", *URL, "--timezone", "Mars"): "is not an IANA time zone",
    ("study", "create", "x", *URL, "--protocol", "none"): "none",
    ("study", "create", "x", *URL, "--set", "schedule"): "--set takes KEY=VALUE",
    ("study", "create", "x", *URL, "--set", "=1"): "--set takes KEY=VALUE",
    ("study", "create", "x", *URL, "--set", "schedule=1", "--set", "schedule.a=1"): "is a value already",
    ("study", "create", "x", *URL, "--set", "schedule.study_length=many"): "study_length",
    ("study", "registration-token", "x"): "only KAIROS_REGISTRATION=token",
    ("client", "create", "x", "--study", "none", "--role", "client"): "there is no study 'none'",
    ("client", "create", "x", "--study", "none", "--role", "king"): "'king' is not one of",
    ("client", "create", "x" * 129, "--study", "none", "--role", "client"): "must be 1 to 128",
    ("client", "list", "--study", "none"): "there is no study 'none'",
    ("client", "disable", "none"): "there is no account 'none'",
    ("client", "enable", "none"): "there is no account 'none'",
    ("client", "role", "none", "admin"): "there is no account 'none'",
    ("client", "password", "none"): "there is no account 'none'",
    ("dump", "/proc/none"): "cannot write to /proc/none",
}


def sentence(service: Service, *words: str) -> str:
    """What a command says that must fail."""
    result = service.app.test_cli_runner().invoke(args=list(words))
    assert result.exit_code in {1, 2}, result.output
    assert "Traceback" not in result.output
    return str(result.output.splitlines()[-1])


@pytest.mark.parametrize(("words", "told"), FAILURES.items(), ids=str)
def test_failures_are_sentences(shared_service: Service, words: tuple[str, ...], told: str) -> None:
    said = sentence(shared_service, *words)
    assert said.startswith("Error: ")
    assert told in said


@pytest.mark.parametrize("token", ["abc\n", "abc\r\n", "two words", " ", "t\u00f6ken", "\u20ac", "a\x7f"])
def test_a_token_that_no_header_can_hold_makes_no_study(
    shared_service: Service, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("KAIROS_EMA_TOKEN", token)
    said = sentence(shared_service, "study", "create", "without a token", *URL)
    assert "printable ASCII" in said
    names = [study["study"] for study in shared_service.command("study", "list")["studies"]]
    assert "without a token" not in names


def test_a_name_is_given_once(study: Study) -> None:
    assert "there is a study" in sentence(study.service, "study", "create", study.name, *URL)
    words = ("client", "create", f"admin@{study.name}", "--study", study.name, "--role", "admin")
    assert "there is an account" in sentence(study.service, *words)


def test_studies_and_accounts_are_listed_without_secrets(study: Study) -> None:
    made = study.service.command("study", "create", f"{study.name} too", *URL)
    listed = {entry["study"]: entry for entry in study.service.command("study", "list")["studies"]}
    assert listed[f"{study.name} too"]["study_key_sha256"] == made["study_key_sha256"]
    assert set(listed[study.name]) == {"study", "paused", "study_key_sha256"}
    study.service.command("client", "disable", f"researcher@{study.name}")
    assert study.service.command("client", "list", "--study", study.name)["clients"] == [
        {"name": f"{role}@{study.name}", "study": study.name, "role": role, "disabled": role == "researcher"}
        for role in ("admin", "client", "researcher")
    ]
    assert len(study.service.command("client", "list")["clients"]) >= 3


def test_production_asks_back_ends_over_https_alone(embedded: Embedded, fresh_database: str) -> None:
    production = {"KAIROS_MODE": "production", "KAIROS_REGISTRATION": "closed", "KAIROS_TLS_TERMINATED": "1"}
    with configured(embedded, fresh_database, **production) as service:
        said = sentence(service, "study", "create", "trial", "--ema-url", "http://app.example.org/ema")
        assert said == "Error: Invalid value for '--ema-url': production asks back ends over https:// alone"
        service.command("study", "create", "trial", *URL)


def test_new_keys_need_no_settings_and_are_fit_for_production(monkeypatch: pytest.MonkeyPatch) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "api.core.keys", "new"],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    keys = json.loads(made.stdout)
    safe = {
        "DATABASE_URL": "postgresql://x/y",
        "BROKER_URL": "redis://x",
        "KAIROS_MODE": "production",
        "KAIROS_REGISTRATION": "closed",
        "KAIROS_TLS_TERMINATED": "1",
        "KAIROS_SIGNING_KEYS": keys["signing_key"],
        "KAIROS_SECRETS_KEYS": keys["secrets_key"],
    }
    for name, value in safe.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    assert settings().secrets_keys == (keys["secrets_key"],)
    settings.cache_clear()


def test_a_rotation_brings_every_stored_secret_under_the_new_key(
    embedded: Embedded, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    monkeypatch.setenv("KAIROS_EMA_TOKEN", "token-of-the-back-end")
    with configured(embedded, fresh_database, KAIROS_SECRETS_KEYS=old) as service:
        service.command("study", "create", "trial", *URL)
        key = transact(lambda session: studies.everyone(session)[0].study_key)
    before = stored(fresh_database)
    assert not any(b"token-of-the-back-end" in secret or key in secret for secret in before)
    with configured(embedded, fresh_database, KAIROS_SECRETS_KEYS=new) as service:
        assert sentence(service, "keys", "rotate").endswith("under none of the KAIROS_SECRETS_KEYS")
    assert stored(fresh_database) == before
    with configured(embedded, fresh_database, KAIROS_SECRETS_KEYS=f"{new},{old}") as service:
        assert service.command("keys", "rotate") == {"secrets": 2}
    with configured(embedded, fresh_database, KAIROS_SECRETS_KEYS=new):
        (study,) = transact(studies.everyone)
        assert (study.study_key, study.ema_token) == (key, b"token-of-the-back-end")
    with pytest.raises(InvalidToken):
        Fernet(old).decrypt(stored(fresh_database)[0])


def stored(database_url: str) -> list[bytes]:
    """Every ciphertext in the database."""
    columns = [
        (table.name, column.name)
        for table in models.metadata.sorted_tables
        for column in table.columns
        if is_encrypted(column)
    ]
    with cursor(database_url) as found:
        secrets = []
        for table, column in columns:
            found.execute(f"SELECT {column} AS secret FROM {table}")
            secrets += [bytes(row["secret"]) for row in found.fetchall()]
    return secrets


def test_without_a_database_commands_end_in_a_sentence(embedded: Embedded, fresh_database: str) -> None:
    gone = "postgresql://kairos:hidden@127.0.0.1:1/none"
    with configured(embedded, gone) as service:
        for words in (("study", "list"), ("client", "list"), ("keys", "rotate"), ("dump", "/tmp/unused")):
            said = sentence(service, *words)
            assert said.startswith("Error: the database cannot be used: ")
            assert "hidden" not in said


def test_without_migrations_commands_end_in_a_sentence(embedded: Embedded) -> None:
    with configured(embedded, embedded.database_url("postgres")) as service:
        assert sentence(service, "study", "list").endswith("(is the database migrated?)")


def test_a_dump_holds_every_table_and_no_secret(study: Study, tmp_path: Path) -> None:
    study.enrol("ann")
    study.live("ann", 1)
    dumped = study.service.command("dump", str(tmp_path))
    assert set(dumped["rows"]) == set(models.metadata.tables)
    written = "".join(path.read_text() for path in tmp_path.glob("*.csv"))
    for secret in ("password_hash", "study_key,", "ema_token", "$argon2"):
        assert secret not in written

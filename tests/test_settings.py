"""What an operator sees who starts the service with settings that are missing or unsafe."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from settings import Settings, WrongSettings, settings

ROOT = Path(__file__).parent.parent
SIGNING_KEY = "kVw3-9sQzT7bYdR1mLxE5uHfGcJpN0oA2iBt"
SAFE = {
    "PATH": os.environ["PATH"],
    "DATABASE_URL": "postgres://kairos:hidden-password@127.0.0.1:1/kairos",
    "BROKER_URL": "redis://:hidden-password@127.0.0.1:1/0",
    "KAIROS_MODE": "production",
    "KAIROS_SIGNING_KEYS": SIGNING_KEY,
    "KAIROS_SECRETS_KEYS": Fernet.generate_key().decode(),
    "KAIROS_REGISTRATION": "token",
    "KAIROS_REGISTRATION_SECRET": SIGNING_KEY[::-1],
    "KAIROS_TLS_TERMINATED": "true",
}
UNSAFE = {
    "first": ({"KAIROS_REGISTRATION": "first"}, "KAIROS_REGISTRATION=first"),
    "no TLS": ({"KAIROS_TLS_TERMINATED": "false"}, "KAIROS_TLS_TERMINATED"),
    "no signing key": ({"KAIROS_SIGNING_KEYS": ""}, "KAIROS_SIGNING_KEYS"),
    "a short signing key": ({"KAIROS_SIGNING_KEYS": SIGNING_KEY[:31]}, "KAIROS_SIGNING_KEYS"),
    "a short second key": ({"KAIROS_SIGNING_KEYS": f"{SIGNING_KEY},short"}, "KAIROS_SIGNING_KEYS"),
    "a typed key": ({"KAIROS_SIGNING_KEYS": "change-me-" + SIGNING_KEY}, "KAIROS_SIGNING_KEYS"),
    "a monotonous key": ({"KAIROS_SIGNING_KEYS": "abcd" * 10}, "KAIROS_SIGNING_KEYS"),
    "no secrets key": ({"KAIROS_SECRETS_KEYS": ""}, "KAIROS_SECRETS_KEYS"),
    "no Fernet key": ({"KAIROS_SECRETS_KEYS": SIGNING_KEY}, "KAIROS_SECRETS_KEYS"),
    "no registration secret": ({"KAIROS_REGISTRATION_SECRET": ""}, "KAIROS_REGISTRATION_SECRET"),
    "a short registration secret": (
        {"KAIROS_REGISTRATION_SECRET": SIGNING_KEY[:31]},
        "KAIROS_REGISTRATION_SECRET",
    ),
    "a typed registration secret": (
        {"KAIROS_REGISTRATION_SECRET": "change-me-" + SIGNING_KEY},
        "KAIROS_REGISTRATION_SECRET",
    ),
    "the token of all studies": (
        {"KAIROS_REGISTRATION_TOKEN": "hidden-password"},
        "KAIROS_REGISTRATION_TOKEN",
    ),
    "no webhook secret": (
        {"KAIROS_WEBHOOK_URL": "https://x.org", "KAIROS_WEBHOOK_SECRET": "short"},
        "KAIROS_WEBHOOK_URL",
    ),
    "a webhook without TLS": (
        {"KAIROS_WEBHOOK_URL": "http://x.org", "KAIROS_WEBHOOK_SECRET": SIGNING_KEY},
        "KAIROS_WEBHOOK_URL",
    ),
    "mail to nobody": ({"KAIROS_SMTP_HOST": "mail.x.org"}, "KAIROS_SMTP_HOST"),
    "a mail password in clear": (
        {"KAIROS_SMTP_TLS": "none", "KAIROS_SMTP_PASSWORD": "hidden-password"},
        "KAIROS_SMTP_PASSWORD",
    ),
    "a short metrics token": ({"KAIROS_METRICS_TOKEN": "short"}, "KAIROS_METRICS_TOKEN"),
    "silence sooner than life": ({"KAIROS_SILENCE_SECONDS": "60"}, "KAIROS_SILENCE_SECONDS"),
    "another database": ({"DATABASE_URL": "mysql://hidden-password@x/y"}, "DATABASE_URL"),
    "another broker": ({"BROKER_URL": "amqp://hidden-password@x"}, "BROKER_URL"),
    "the folder of exports": ({"KAIROS_EXPORT_FOLDER": "/exports"}, "KAIROS_EXPORT_FOLDER is no setting"),
    "the folder of backups": ({"KAIROS_BACKUP_FOLDER": "/backups"}, "KAIROS_BACKUP_FOLDER is no setting"),
    "a store that is none": ({"KAIROS_STORE": "/var/lib/objects"}, "KAIROS_STORE must be file:///folder"),
    "a store on a host": ({"KAIROS_STORE": "file://host/folder"}, "KAIROS_STORE must be file:///folder"),
    "a store above its bucket": ({"KAIROS_STORE": "s3://bucket/.."}, "KAIROS_STORE must be file:///folder"),
    "a bucket without its keys": (
        {"KAIROS_STORE": "s3://bucket"},
        "KAIROS_STORE=s3://... needs AWS_ACCESS_KEY_ID",
    ),
    "an endpoint that is no address": ({"KAIROS_STORE_ENDPOINT": "s3.org"}, "KAIROS_STORE_ENDPOINT must be"),
    "links in clear": ({"KAIROS_STORAGE_URL": "http://x.org"}, "KAIROS_PUBLIC_URL and KAIROS_STORAGE_URL"),
    "an unknown mode": ({"KAIROS_MODE": "prod"}, "KAIROS_MODE"),
    "a number that is none": ({"KAIROS_TOKEN_HOURS": "a day"}, "KAIROS_TOKEN_HOURS"),
}
COMMANDS = {
    "gunicorn": ("gunicorn", "api.app:create_app()"),
    "flask": ("flask", "--app", "api.app", "study", "list"),
    "worker": ("celery", "--app", "workers.app", "worker"),
    "beat": ("celery", "--app", "workers.app", "beat", "--schedule", "unused"),
}


def read(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    try:
        return settings()
    finally:
        settings.cache_clear()


def test_safe_settings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(SAFE, monkeypatch).database_url.startswith("postgresql+psycopg2://kairos:")


@pytest.mark.parametrize(("change", "named"), UNSAFE.values(), ids=UNSAFE)
def test_production_refuses_to_start(
    change: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WrongSettings) as refused:
        read(SAFE | change, monkeypatch)
    sentence = str(refused.value)
    assert sentence.startswith(f"kairos: {named}")
    assert sentence.count("\n") == 0
    hidden = [value for name, value in {**SAFE, **change}.items() if re.search("KEYS|TOKEN|SECRET", name)]
    assert not [value for value in (*hidden, "hidden-password") if len(value) > 4 and value in sentence]


def test_s3_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {"KAIROS_STORE": "s3://bucket", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    assert read(SAFE | stored, monkeypatch).store == "s3://bucket"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(WrongSettings, match="needs the package obstore"):
        read(SAFE | stored, monkeypatch)


def test_what_is_missing_is_named_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WrongSettings) as refused:
        read({}, monkeypatch)
    for name in ("DATABASE_URL", "BROKER_URL", "KAIROS_SIGNING_KEYS", "KAIROS_SECRETS_KEYS"):
        assert name in str(refused.value)


@pytest.mark.parametrize("bind", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "unix:/run/kairos.sock"])
def test_the_first_caller_may_register_on_loopback(bind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = {"KAIROS_MODE": "embedded", "KAIROS_REGISTRATION": "first", "KAIROS_API_BIND": bind}
    assert read(SAFE | embedded, monkeypatch).registration == "first"


@pytest.mark.parametrize("bind", ["0.0.0.0:8000", ":8000", "[::]:8000", "10.0.0.1:80"])
def test_the_first_caller_may_not_register_from_elsewhere(bind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = {"KAIROS_MODE": "embedded", "KAIROS_REGISTRATION": "first", "KAIROS_API_BIND": bind}
    with pytest.raises(WrongSettings, match="KAIROS_API_BIND must be a loopback address"):
        read(SAFE | embedded, monkeypatch)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_process_says_one_sentence_and_ends(command: tuple[str, ...], tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        env=SAFE | {"KAIROS_TLS_TERMINATED": "false", "PYTHONPATH": str(ROOT)},
        cwd=ROOT if command[0] == "gunicorn" else tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [line.partition("kairos: ")[2] for line in ended.stderr.splitlines() if "kairos: " in line]
    assert ended.returncode == 1
    assert said == ["KAIROS_TLS_TERMINATED=true must declare that TLS ends before this service."]
    assert "Traceback" not in ended.stderr

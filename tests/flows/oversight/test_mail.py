"""Notifications by mail, to a real mail server, and beside the webhook."""

import ssl
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from models.oversight.incidents import RED
from tests.support.receivers import (
    PASSWORD,
    USER,
    Hook,
    certificate,
    drip_after_starttls,
    drip_greeting,
    listening,
    mailbox,
)
from tests.support.study import begin
from tests.workers.oversight.test_notifications import (
    SECRET,
    Start,
    deliver,
    outcomes,
    receiver,
    see,
    start,
    states,
)
from workers.core import outgoing
from workers.oversight import notifications as notify

__all__ = ["receiver", "start"]  # fixtures


def mail_settings(port: int, **more: str) -> dict[str, str]:
    settings = {
        "KAIROS_SMTP_HOST": "127.0.0.1",
        "KAIROS_SMTP_PORT": str(port),
        "KAIROS_SMTP_FROM": "kairos@example.org",
        "KAIROS_SMTP_TO": "ops@example.org, pi@example.org",
    }
    return {**settings, **more}


def test_mail_over_starttls_with_a_login(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_database: str
) -> None:
    with mailbox(tmp_path, tls=True) as box:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        login = {"KAIROS_SMTP_USER": USER.decode(), "KAIROS_SMTP_PASSWORD": PASSWORD.decode()}
        with start(**mail_settings(box.port, **login)) as service:
            begin(service)
            see(RED, datetime.now(UTC))
            deliver(times=2)
        (mail,) = box.mails
        assert (box.over_tls, box.logins) == ([True], 1)
    assert mail["Subject"] == "[Kairos] red: queue old, study 1 (opened)"
    assert mail["To"] == "ops@example.org, pi@example.org"
    assert mail["Message-ID"] == "<kairos-1@example.org>"
    assert 'detail: {"jobs": 3}' in str(mail.get_payload())
    assert states(fresh_database) == [("email", "sent", 1)]


def test_no_mail_goes_to_a_server_that_cannot_prove_itself(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_database: str
) -> None:
    another = tmp_path / "another"
    another.mkdir()
    with mailbox(tmp_path, tls=True) as box:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate(another)))
        with start(**mail_settings(box.port)) as service:
            begin(service)
            see(RED, datetime.now(UTC))
            deliver()
        assert box.mails == []
    assert states(fresh_database) == [("email", "queued", 1)]


def test_a_password_that_cannot_be_sent_ends_after_so_many_tries_and_stops_nobody(
    start: Start,
    receiver: Hook,
    tmp_path: Path,
    fresh_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notify, "LADDER", notify.LADDER._replace(tries=3))
    monkeypatch.setattr(notify, "channels", lambda: ["email", "webhook"])  # the one that fails goes first
    login = {"KAIROS_SMTP_USER": USER.decode(), "KAIROS_SMTP_PASSWORD": "f\u00fcr die Post"}
    hooked = {"KAIROS_WEBHOOK_URL": receiver.url, "KAIROS_WEBHOOK_SECRET": SECRET}
    with mailbox(tmp_path, tls=True) as box:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        with start(**mail_settings(box.port, **login), **hooked) as service:
            begin(service)
            see(RED, datetime.now(UTC))
            deliver()
            assert states(fresh_database) == [("email", "queued", 1), ("webhook", "sent", 1)]
            deliver(times=4)
    assert states(fresh_database)[0] == ("email", "failed", 3)
    assert outcomes(fresh_database)[0] == ("failed", "not delivered: UnicodeEncodeError")


@pytest.mark.parametrize("encryption", ["none", "tls", "starttls"])
def test_a_mail_server_that_drips_holds_nobody(
    start: Start, tmp_path: Path, fresh_database: str, monkeypatch: pytest.MonkeyPatch, encryption: str
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate(tmp_path), tmp_path / "key.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    monkeypatch.setattr(outgoing, "TOTAL_SECONDS", 1.0)
    answer = drip_greeting if encryption != "starttls" else partial(drip_after_starttls, context=context)
    with listening(answer, context if encryption == "tls" else None, greets=True) as url:
        port = urlsplit(url).port or 0
        with start(**mail_settings(port, KAIROS_SMTP_TLS=encryption), KAIROS_RETRY_SECONDS="60") as service:
            begin(service)
            see(RED, datetime.now(UTC))
            began = time.monotonic()
            deliver()
            assert time.monotonic() - began < 10
    assert outcomes(fresh_database) == [("queued", "not delivered: TimeoutError")]


def test_both_channels_fail_and_succeed_on_their_own(
    start: Start, receiver: Hook, tmp_path: Path, fresh_database: str
) -> None:
    hooked = {"KAIROS_WEBHOOK_URL": receiver.url, "KAIROS_WEBHOOK_SECRET": SECRET}
    with mailbox(tmp_path, tls=False) as box:
        box.refuses = True
        with start(**mail_settings(box.port, KAIROS_SMTP_TLS="none"), **hooked) as service:
            begin(service)
            see(RED, datetime.now(UTC))
            deliver(times=2)
            assert sorted(states(fresh_database))[1] == ("webhook", "sent", 1)
            box.refuses = False
            deliver()
        assert len(box.mails) == 1
    assert {(channel, state) for channel, state, _ in states(fresh_database)} == {
        ("webhook", "sent"),
        ("email", "sent"),
    }
    assert any(tries > 1 for _, _, tries in states(fresh_database))

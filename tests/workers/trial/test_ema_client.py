"""Back ends that are slow, hostile, far away or tired: always a result, in bounded time."""

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import trustme
from sqlalchemy import text

from local.ports import free_port
from models.core.session import transact
from settings import settings
from tests.support.backend import BackEnd
from tests.support.receivers import HEAD, drip_head, endless, listening
from tests.support.study import Study
from tests.workers.trial.test_ingest import decide_and_end, outcome
from workers.core import outgoing
from workers.trial import ema_client, ingest
from workers.trial.ema_client import BackEndFailed, Query

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PACKED = gzip.compress(b" " * 20_000_000)  # a small answer that is a large one


def failure(url: str) -> BackEndFailed:
    """How asking this back end fails."""
    with pytest.raises(BackEndFailed) as raised:
        ema_client.survey_data(Query(url, "secret-token", "ann", NOW, NOW))
    assert "ann" not in raised.value.reason
    assert "secret-token" not in raised.value.reason
    return raised.value


def drip(connection: socket.socket, head: bytes = HEAD) -> None:
    connection.sendall(head + b"Content-Length: 1000\r\n\r\n")
    for _ in range(1000):
        connection.sendall(b" ")
        time.sleep(0.02)


MOVED = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n"


def moved_and_drips(connection: socket.socket) -> None:
    drip(connection, MOVED)


def moved_and_large(connection: socket.socket) -> None:
    size = 2 * ema_client.LARGEST_ANSWER
    connection.sendall(MOVED + f"Content-Length: {size}\r\n\r\n".encode() + b" " * size)


def moved_to_no_address(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: \x80\r\nContent-Length: 2\r\n\r\n{}")


def packed(connection: socket.socket) -> None:
    head = HEAD + f"Content-Encoding: gzip\r\nContent-Length: {len(PACKED)}\r\n\r\n".encode()
    connection.sendall(head + PACKED)


def cut(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")


def nothing(connection: socket.socket) -> None:
    """Close without a word."""


@pytest.mark.usefixtures("only_study")
@pytest.mark.parametrize(
    ("answer", "soon", "reason"),
    [
        (drip, True, "takes too long"),
        (drip_head, True, "no answer: ReadTimeout"),
        (endless, False, "too large"),
        (packed, False, "too large"),
        (moved_and_drips, True, "takes too long"),
        (moved_and_large, False, "too large"),
        (moved_to_no_address, False, "HTTP status 302"),
        (cut, True, "no answer"),
        (nothing, True, "no answer"),
    ],
)
def test_whatever_comes_ends_in_bounded_time_and_size(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[socket.socket], None], soon: bool, reason: str
) -> None:
    monkeypatch.setattr(outgoing, "TOTAL_SECONDS", 0.3)
    with listening(answer) as url:
        failed = failure(url)
    assert (failed.code, failed.soon) == (ema_client.UNREACHABLE, soon)
    assert reason in failed.reason


@pytest.mark.usefixtures("only_study")
def test_nobody_listens() -> None:
    failed = failure(f"http://127.0.0.1:{free_port()}/ema")
    assert (failed.code, failed.soon, failed.reason) == (320, True, "no answer: ConnectionError")


@pytest.mark.usefixtures("only_study")
def test_a_server_that_does_not_speak_tls() -> None:
    with listening(nothing) as url:
        failed = failure(url.replace("http", "https"))
    assert (failed.code, failed.soon) == (320, True)


@pytest.mark.usefixtures("only_study")
def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    made = trustme.CA().issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.configure_cert(context)

    def shake(connection: socket.socket) -> None:
        with suppress(ssl.SSLError):  # it is refused
            context.wrap_socket(connection, server_side=True).close()

    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: shake(server.accept()[0]), daemon=True).start()
    failed = failure(f"https://127.0.0.1:{server.getsockname()[1]}/ema")
    server.close()
    assert (failed.code, failed.soon, failed.reason) == (320, True, "no answer: SSLError")


@pytest.mark.usefixtures("only_study")
def test_a_head_that_drips_over_tls_is_cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    monkeypatch.setattr(outgoing, "TOTAL_SECONDS", 0.3)
    monkeypatch.setattr(outgoing.http_session(), "verify", str(tmp_path / "authority.pem"))
    with listening(drip_head, context) as url:
        began = time.monotonic()
        failed = failure(url.replace("http", "https"))
    assert (failed.soon, failed.reason) == (True, "no answer: ReadTimeout")
    assert time.monotonic() - began < 5


def test_a_redirect_is_not_followed_and_the_token_stays_here(ema_study: Study, back_end: BackEnd) -> None:
    seen: list[bytes] = []
    with listening(lambda connection: seen.append(connection.recv(65536))) as elsewhere:
        back_end.status, back_end.headers = 307, {"Location": elsewhere}
        ema_study.enrol("ann")
        _, job_id = decide_and_end(ema_study)
        ingest.run(job_id)
    assert outcome(ema_study, job_id) == ("failed", 320, "failed")
    assert seen == []


@pytest.mark.parametrize(
    ("given", "least", "most"),
    [
        ("120", 120, 121),
        ("999999", 3600, 3601),
        ("in five minutes", 290, 301),
        ("soon", 0, 10),
        ("-5", 0, 10),
    ],
    ids=["seconds", "too many seconds", "date", "word", "negative"],
)
def test_who_asks_to_be_left_in_peace_is(
    ema_study: Study, back_end: BackEnd, given: str, least: float, most: float
) -> None:
    if given == "in five minutes":
        given = format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)
    back_end.status, back_end.headers = 429, {"Retry-After": given}
    ema_study.enrol("ann")
    _, job_id = decide_and_end(ema_study)
    ingest.run(job_id)
    waits = transact(
        lambda session: session.execute(
            text("SELECT extract(epoch FROM run_after - now()) FROM jobs")
        ).scalar()
    )
    assert least - 2 <= float(waits or 0) <= most


@pytest.mark.usefixtures("only_study")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.1.2.3", "169.254.169.254", "[::1]"])
def test_private_addresses_are_not_asked_unless_the_operator_says_so(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("KAIROS_OUTGOING_HOSTS", host.strip("[]"))
    monkeypatch.setenv("KAIROS_OUTGOING_PRIVATE", "false")
    settings.cache_clear()
    failed = failure(f"http://{host}:9/ema")
    assert (failed.soon, failed.reason) == (False, "the host has a private address")

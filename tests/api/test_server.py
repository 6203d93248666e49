"""What is no HTTP request, at the real server: refused in the shape of all errors, not quoted in its log."""

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]

import logs
from api.server import ErrorLog
from local.stack import Stack

NAME = "somebody-s-name"
HEAD = f"GET /participants?user_id={NAME} HTTP/1.1\r\nHost: a\r\n"
BROKEN = {
    "two types": HEAD + "Content-Type: application/json\r\nContent-Type: text/plain\r\n\r\n",
    "two lengths": HEAD + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "no length": HEAD + "Content-Length: many\r\n\r\n",
    "length and chunks": HEAD + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": HEAD + f"Transfer-Encoding: {NAME}\r\n\r\n",
    "no header": HEAD + f"{NAME}\r\n\r\n",
    "a blank in a name": HEAD + f"{NAME} : 1\r\n\r\n",
    "no version": f"GET /participants?user_id={NAME}\r\n\r\n",
    "another version": f"GET /participants?user_id={NAME} HTTP/7.3\r\n\r\n",
    "no method": f"{NAME}\r\n\r\n",
    "a long line": f"GET /{NAME}?{'x' * 9000} HTTP/1.1\r\n\r\n",
    "a long header": HEAD + f"{NAME}: {'x' * 70_000}\r\n\r\n",
}


def exchange(stack: Stack, sent: str) -> tuple[str, bytes]:
    """The head and the body of what the server answers before it closes the connection."""
    url = urlsplit(stack.api_url)
    received = b""
    with socket.create_connection((url.hostname, url.port), timeout=20) as link:
        link.sendall(sent.encode())
        try:
            while more := link.recv(65536):
                received += more
        except ConnectionResetError:  # it did not read all that was sent
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    return head.decode(), body


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
def test_what_is_no_request_is_refused_in_the_shape_of_all_errors(stack: Stack, sent: str) -> None:
    head, body = exchange(stack, sent)
    assert head.startswith("HTTP/1.1 400 Bad Request\r\n")
    assert "Content-Type: application/json" in head
    assert "X-Request-ID: " in head
    told = json.loads(body)
    assert (told["status"], told["error_code"]) == ("fail", 911)
    assert NAME not in body.decode()


LARGEST = 64 * 1024
CHUNKED = (
    "POST /auth/login HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)
WRONG = json.dumps({"api_user": NAME, "api_pass": "a wrong password"})


def chunked(*parts: str) -> str:
    """A request whose body comes in these chunks."""
    return CHUNKED + "".join(f"{len(part):x}\r\n{part}\r\n" for part in (*parts, ""))


def declared(call: str, length: int) -> str:
    """A request with a body of this length and no token."""
    return (
        f"{call} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{'x' * length}"
    )


@pytest.mark.parametrize("call", ["POST /update_parameters", "POST /auth/login", "GET /study", "POST /none"])
def test_what_declares_too_much_is_refused_also_where_no_body_is_read(stack: Stack, call: str) -> None:
    head, body = exchange(stack, declared(call, LARGEST + 1))
    assert head.startswith("HTTP/1.1 413 ")
    assert json.loads(body)["error_code"] == 903
    assert not exchange(stack, declared(call, LARGEST))[0].startswith("HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (chunked(WRONG[:10], WRONG[10:]), 401, 7),
        (chunked(WRONG.ljust(LARGEST)), 401, 7),
        (chunked(WRONG.ljust(LARGEST), "} no JSON any more"), 413, 903),
        (chunked("x" * LARGEST, *["x" * LARGEST] * 10), 413, 903),
        (CHUNKED + "ZZ\r\nabc", 400, 911),
        (CHUNKED + "5\r\nabcdefgh\r\n0\r\n\r\n", 400, 911),
    ],
    ids=["whole", "as large as allowed", "it goes on", "far too large", "no length", "another length"],
)
def test_a_body_in_chunks_is_read_whole_or_refused(stack: Stack, sent: str, status: int, code: int) -> None:
    head, body = exchange(stack, sent)
    assert head.startswith(f"HTTP/1.1 {status} ")
    told = json.loads(body)
    assert (told["status"], told["error_code"]) == ("fail", code)


def test_the_log_does_not_quote_it(stack: Stack, passable: Path) -> None:
    head, _ = exchange(stack, BROKEN["two types"])
    request_id = head.partition("X-Request-ID: ")[2].partition("\r\n")[0]
    (log,) = (passable / "stack").rglob("api.log")
    written = log.read_text()
    assert request_id in written
    assert NAME not in written


def test_the_server_makes_no_line_of_a_request_for_nobody() -> None:
    settings = Config()
    settings.set("logconfig_dict", logs.standard({}, ("gunicorn.error",)))
    ErrorLog(settings).access(None, None, {}, None)  # anything it looked at is not there

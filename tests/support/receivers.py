"""A webhook's receiver, a mail server and a bare one, all real, whose answers the test chooses."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from local.ports import free_port

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
USER, PASSWORD = b"kairos", b"a password of the mail server"


class Hook:
    """Answers with the statuses in `statuses`, the last one for ever; keeps headers and bodies."""

    def __init__(self) -> None:
        self.statuses = [204]
        self.headers: dict[str, str] = {}
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.got.append((dict(handler.headers), body))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        handler.send_response(status)
        for name, value in {**self.headers, "Content-Length": "0"}.items():
            handler.send_header(name, value)
        handler.end_headers()


@contextmanager
def hook() -> Iterator[Hook]:
    """A receiver on a port of its own."""
    made = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.answer(self)

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}/incidents"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


class Mailbox:
    """Takes mails, unless `refuses`; a login must be the one above."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.logins = 0
        self.over_tls: list[bool] = []
        self.refuses = False
        self.port = 0

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """One mail."""
        if self.refuses:
            return "451 try again later"
        self.mails.append(message_from_bytes(envelope.content))
        self.over_tls.append(session.ssl is not None)
        return "250 taken"

    def login(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        """One login."""
        self.logins += 1
        right = isinstance(given, LoginPassword) and (given.login, given.password) == (USER, PASSWORD)
        return AuthResult(success=right, handled=False)


@contextmanager
def mailbox(folder: Path, tls: bool) -> Iterator[Mailbox]:
    """A mail server on a port of its own; with `tls` it asks for STARTTLS and then for a login."""
    made = Mailbox()
    more: dict[str, Any] = {}
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate(folder), folder / "key.pem")
        more = {"tls_context": context, "require_starttls": True, "auth_required": True}
        more["authenticator"] = made.login
    made.port = free_port()
    server = Controller(made, hostname="127.0.0.1", port=made.port, **more)
    server.start()
    yield made
    server.stop()


def certificate(folder: Path) -> Path:
    """A certificate of 127.0.0.1 that it has signed itself; its key lies beside it in key.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "certificate.pem"


@contextmanager
def listening(
    answer: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None, greets: bool = False
) -> Iterator[str]:
    """A server that does with each connection what it is told, once it was asked or (`greets`) at once."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                try:
                    spoken = tls.wrap_socket(connection, server_side=True) if tls else connection
                    _ = greets or spoken.recv(65536)
                    answer(spoken)
                except OSError:
                    pass

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/ema"
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def drip_head(connection: socket.socket) -> None:
    """An answer whose head takes twenty seconds."""
    connection.sendall(HEAD + b"X-Slow: ")
    for _ in range(1000):
        connection.sendall(b"x")
        time.sleep(0.02)


def drip_greeting(connection: socket.socket) -> None:
    """A mail server's first answer, which takes twenty seconds."""
    for _ in range(1000):
        connection.sendall(b"2")
        time.sleep(0.02)


def drip_after_starttls(connection: socket.socket, context: ssl.SSLContext) -> None:
    """A mail server that is quick until TLS begins."""
    connection.sendall(b"220 mail\r\n")
    connection.recv(65536)  # EHLO
    connection.sendall(b"250-mail\r\n250 STARTTLS\r\n")
    connection.recv(65536)
    connection.sendall(b"220 go on\r\n")
    with context.wrap_socket(connection, server_side=True) as spoken:
        drip_greeting(spoken)


def endless(connection: socket.socket) -> None:
    """An answer whose body has no end."""
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")

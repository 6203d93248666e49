"""A study's back end whose next answer the test writes down."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class BackEnd:
    """Answers every POST with `status`, `headers` and `body`, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: Any = {"status": "success", "ema_data": {}}
        self.asked: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.url = ""

    def has(self, *items: dict[str, Any]) -> None:
        """Answer with these items."""
        self.status = 200
        self.body = {"status": "success", "ema_data": {str(place): item for place, item in enumerate(items)}}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        length = int(handler.headers["Content-Length"])
        self.asked.append(json.loads(handler.rfile.read(length)))
        self.tokens.append(handler.headers["Authorization"])
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        handler.send_response(self.status)
        for name, value in {**self.headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def serving() -> Iterator[BackEnd]:
    """A back end on a port of its own."""
    back_end = BackEnd()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            back_end.answer(self)

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    back_end.url = f"http://127.0.0.1:{server.server_port}/ema_study"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield back_end
    server.shutdown()
    server.server_close()

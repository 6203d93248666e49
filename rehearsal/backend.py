"""The study app's own back end: it keeps the participants' answers and serves POST /ema_study.

Failures on purpose (a share of calls answers 500, answers late, closes or breaks off the connection) show
whether the service gets its data all the same.
"""

import hmac
import json
import os
import random
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from rehearsal.contract import Brushing, Decision, Enrolment, Survey

TOLERANCE = timedelta(seconds=1)
LARGEST_BODY = 64 * 1024
FAULTS = ("error", "late", "closed")
MORE_FAULTS = (*FAULTS, "reset", "not JSON", "fail")


@dataclass(frozen=True)
class Faults:
    """The failures on purpose: `share` of the calls, in [0, 1], fail in one of the ways `kinds`.

    A late answer takes `late` seconds more.
    """

    share: float = 0.0
    late: float = 12.0
    seed: int = 0
    kinds: tuple[str, ...] = FAULTS


class Backend:
    """The app's data of its participants. Many threads may use it at a time."""

    def __init__(self, token: str | None, faults: Faults | None = None) -> None:
        self._token, self.faults = token, faults or Faults()
        self._random = random.Random(self.faults.seed)
        self._lock = threading.Lock()
        self._items: dict[str, list[tuple[datetime, dict[str, Any]]]] = {}
        self.calls = self.failed_on_purpose = 0

    def enrol(self, user_id: str) -> None:
        """Add a participant who has no data yet."""
        with self._lock:
            self._items.setdefault(user_id, [])

    def store(self, enrolment: Enrolment, answers: Survey | Brushing, decision: Decision) -> None:
        """Keep the data of one decision point as an item of ema_data.

        A message is shown when its action is drawn, and looked at when the survey is finished.
        """
        at = decision.act_gen_timestamp.isoformat()
        shown = at if decision.action == 1 else "NA"
        finished = isinstance(answers, Survey) and answers.finished_ema
        item = answers.fields() | {
            "user_id": enrolment.user_id,
            "action_taken": decision.action,
            "seed": decision.seed,
            "act_prob": decision.act_prob,
            "policy_id": decision.policy_id,
            "decision_index": decision.decision_index,
            "act_gen_timestamp": at,
            "rid": decision.rid,
            "timestamp_finished_ema": at if finished else "NA",
            "message_notification_sent_time": shown,
            "message_notification_click_time": shown if finished else "NA",
            "morning_notification_time_start": list(enrolment.morning_notification_time_start),
            "evening_notification_time_start": list(enrolment.evening_notification_time_start),
        }
        with self._lock:
            self._items[enrolment.user_id].append((decision.act_gen_timestamp, item))

    def answer(self, query: object) -> tuple[int, dict[str, Any]]:
        """Return status and body for the JSON value posted to /ema_study: items of [start_time, end_time]."""
        try:
            if not isinstance(query, dict) or not isinstance(query["user_id"], str):
                raise TypeError("not a query")
            user_id = query["user_id"]
            start, end = _instant(query["start_time"]), _instant(query["end_time"])
        except (TypeError, KeyError, ValueError):
            return 400, _fail("user_id, start_time and end_time are needed")
        with self._lock:
            items = list(self._items[user_id]) if user_id in self._items else None
        if items is None:
            return 200, _fail("no such participant")
        inside = (item for at, item in items if start - TOLERANCE <= at <= end + TOLERANCE)
        return 200, {"status": "success", "ema_data": {str(item["rid"]): item for item in inside}}

    def admits(self, header: str) -> bool:
        """Return whether the Authorization header has the study's token; without a token all are let in."""
        expected = f"Bearer {self._token}"
        return self._token is None or hmac.compare_digest(header.encode(), expected.encode())

    def next_fault(self) -> str | None:
        """Count a call and return the kind of its failure, None where it shall not fail."""
        with self._lock:
            self.calls += 1
            if self._random.random() >= self.faults.share:
                return None
            self.failed_on_purpose += 1
            return self._random.choice(self.faults.kinds)


class EmaServer(ThreadingHTTPServer):
    """A server of a Backend at the loopback address; it serves while its `with` block runs.

    Port 0 takes any free port; `server_port` is the one taken. Raises OSError where the port is in use.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, backend: Backend, port: int) -> None:
        self.backend = backend
        super().__init__(("127.0.0.1", port), _Handler)

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show an error, unless the caller hung up before its answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: EmaServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30

    def do_POST(self) -> None:
        raw = self._body()
        fault = self.server.backend.next_fault()
        if fault in {"closed", "reset"}:
            self.close_connection = True
            if fault == "reset":
                # the kernel resets a connection that is closed without lingering; detached first, since
                # the server's own orderly end would come before
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())
            return
        if fault == "late":
            time.sleep(self.server.backend.faults.late)
        if fault == "not JSON":
            self._write(200, b"<html>on purpose</html>")
        else:
            status, body = ON_PURPOSE[fault] if fault in ON_PURPOSE else self._answer(raw)
            self._write(status, json.dumps(body).encode())

    def _answer(self, raw: bytes | None) -> tuple[int, dict[str, Any]]:
        if self.path != "/ema_study":
            return 404, _fail("no such route")
        if not self.server.backend.admits(self.headers.get("Authorization", "")):
            return 401, _fail("a bearer token is needed")
        if raw is None:
            return 413, _fail("the body is too large, or its length is not said")
        try:
            return self.server.backend.answer(json.loads(raw))
        except ValueError:
            return 400, _fail("the body is not JSON")

    def _body(self) -> bytes | None:
        """Return the body of the request, None where it is too large or its length is not stated."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            self.close_connection = True  # what is left unread would be taken for the next request
            return None
        return self.rfile.read(int(length))

    def _write(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing, since lines would break the progress bar."""


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _fail(message: str) -> dict[str, Any]:
    return {"status": "fail", "message": message}


ON_PURPOSE = {"error": (500, _fail("on purpose")), "fail": (200, _fail("on purpose"))}

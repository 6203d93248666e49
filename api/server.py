"""What the server itself answers and logs: errors in the shape of all, and no line that quotes a request."""

import uuid
from http import HTTPStatus
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.http.errors import (  # type: ignore[import-untyped]
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    ParseException,
)
from gunicorn.util import write_nonblock  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]
from structlog import get_logger

from api.core.errors import Failure
from logs import where
from services.core.faults import CoreFault
from services.core.refusals import Fault

log = get_logger()


class ErrorLog(Logger):  # type: ignore[misc]  # the package has no types
    """gunicorn's log without its lines of requests, each of which it makes before it finds that nobody reads
    it."""

    access_log_enabled = False


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker of threads, which by itself answers with HTML and logs addresses and URLs."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer on the socket `client`: nothing has reached the application, or it broke its answer off."""
        is_ours = isinstance(exc, InvalidResponseHeader | InvalidResponseHeaderName)
        is_theirs = isinstance(exc, ParseException) and not is_ours
        request_id = uuid.uuid4().hex
        if is_theirs:
            log.warning("no request", error=type(exc).__name__, request_id=request_id)
        else:
            log.error("request failed", error=where(exc), request_id=request_id)
        try:
            write_nonblock(
                client, _answer(CoreFault.BAD_REQUEST if is_theirs else CoreFault.INTERNAL, request_id)
            )
        except OSError:
            log.info("nobody listens", request_id=request_id)


def _answer(fault: Fault, request_id: str) -> bytes:
    body = Failure(message=fault.message, error_code=fault.code).model_dump_json(exclude_none=True)
    head = (
        f"HTTP/1.1 {fault.status} {HTTPStatus(fault.status).phrase}",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Request-ID: {request_id}",
    )
    return "\r\n".join((*head, "", body)).encode()

"""The server's own answers and log lines: errors have the shape of all others, no line quotes a request."""

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

log = get_logger()


class ErrorLog(Logger):  # type: ignore[misc]  # the package has no types
    """gunicorn's log without its lines of requests, which it otherwise makes although nobody reads them."""

    access_log_enabled = False


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker of threads, which by itself answers with HTML and logs addresses and URLs."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer on the socket `client`: nothing has reached the application, or it broke its answer off."""
        # gunicorn's errors of bad requests and of bad responses have one base
        is_response = isinstance(exc, InvalidResponseHeader | InvalidResponseHeaderName)
        is_bad_request = isinstance(exc, ParseException) and not is_response
        fault = CoreFault.BAD_REQUEST if is_bad_request else CoreFault.INTERNAL
        request_id = uuid.uuid4().hex
        if is_bad_request:
            log.warning("no request", error=type(exc).__name__, request_id=request_id)
        else:
            log.error("request failed", error=where(exc), request_id=request_id)
        body = Failure(message=fault.message, error_code=fault.code).model_dump_json(exclude_none=True)
        head = (
            f"HTTP/1.1 {fault.status} {HTTPStatus(fault.status).phrase}",
            "Connection: close",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"X-Request-ID: {request_id}",
        )
        try:
            write_nonblock(client, "\r\n".join((*head, "", body)).encode())
        except OSError:
            log.info("nobody listens", request_id=request_id)

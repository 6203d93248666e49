"""The HTTP half of refusals: one answer shape for everything that is not a success."""

from typing import Literal

import psycopg2
from flask import Flask, Response, request
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError, InterfaceError, InternalError, OperationalError
from structlog import get_logger
from werkzeug.exceptions import HTTPException

from logs import where
from models.core import db_errors
from models.core.objects import StoreAway
from services.core.faults import CoreFault
from services.core.refusals import FieldError, Refusal

log = get_logger()
UNSETTLED = "23505"  # a unique key broken at every try: a race that many ran, longer than the service waits
BY_STATUS = {
    404: CoreFault.NO_ROUTE,
    405: CoreFault.METHOD,
    413: CoreFault.TOO_LARGE,
    415: CoreFault.MEDIA_TYPE,
    416: CoreFault.RANGE,
    429: CoreFault.TOO_MANY,
}


class Failure(BaseModel):
    """The one shape of every answer that is not a success."""

    status: Literal["fail"] = "fail"
    message: str
    error_code: int
    errors: list[FieldError] | None = None


def answer(refusal: Refusal) -> Response:
    """Return the HTTP answer of a refusal."""
    fault = refusal.fault
    body = Failure(message=refusal.message, error_code=fault.code, errors=refusal.errors)
    response = Response(body.model_dump_json(exclude_none=True), fault.status, mimetype="application/json")
    if fault.status in {429, 503}:
        response.headers["Retry-After"] = str(refusal.retry_after)
    if fault.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    request.environ["kairos.error_code"] = fault.code
    return response


def _of_database(error: Exception) -> Response:
    """Answer an error of the database: where it is away or cannot write now, the call is worth repeating."""
    code = db_errors.code_of(error)
    may_pass = db_errors.is_away(error) or code == UNSETTLED
    if isinstance(error, IntegrityError | InternalError) and not may_pass:  # a defect of the service
        return _of_service(error)
    if code == db_errors.DISK_FULL:
        log.error("the database's disk is full")
    else:
        log.warning("database away", error=type(error).__name__, sqlstate=code)
    return answer(Refusal(CoreFault.DATABASE_AWAY))


def _of_store(error: StoreAway) -> Response:
    log.warning("object store away", reason=error.strerror)
    return answer(Refusal(CoreFault.STORE_AWAY))


def _of_service(error: Exception) -> Response:
    log.error("request failed", error=where(error))
    return answer(Refusal(CoreFault.INTERNAL))


def install(app: Flask) -> None:
    """Give every error of the application the one shape."""

    def of_http(error: HTTPException) -> Response:
        code = error.code or 500
        other = CoreFault.BAD_REQUEST if code < 500 else CoreFault.INTERNAL
        response = answer(Refusal(BY_STATUS.get(code, other)))
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response

    app.register_error_handler(Refusal, answer)
    app.register_error_handler(HTTPException, of_http)
    driver = (psycopg2.OperationalError, psycopg2.InterfaceError)
    for kind in (OperationalError, InterfaceError, IntegrityError, InternalError, *driver):
        app.register_error_handler(kind, _of_database)
    app.register_error_handler(StoreAway, _of_store)
    app.register_error_handler(ParseException, lambda _error: answer(Refusal(CoreFault.BAD_REQUEST)))
    app.register_error_handler(Exception, _of_service)

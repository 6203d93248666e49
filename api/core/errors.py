"""Every way the service says no: one table of faults, one exception, one answer shape."""

from enum import Enum
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

log = get_logger()
RETRY_AFTER_SECONDS = 2
UNSETTLED = "23505"  # a race that many ran for, all the time that the service had


class Fault(Enum):
    """error_code, HTTP status and message. The codes below 900 are those of the MiWaves service."""

    TOKEN_MALFORMED = 0, 401, "The Authorization header must be: Bearer <token>."
    TOKEN_MISSING = 1, 401, "A bearer token is needed."
    TOKEN_INVALID = 2, 401, "The token is invalid, expired or revoked."
    NAME_TAKEN = 6, 409, "This api_user exists already."
    REGISTRATION_CLOSED = 4, 403, "No more clients may register."
    REGISTRATION_FIELD = 5, 422, "A field is missing or wrong."
    CREDENTIALS = 7, 401, "Unknown api_user or wrong api_pass."
    LOGIN_FIELD = 8, 422, "A field is missing or wrong."
    LOGOUT_INVALID = 10, 401, "The token is invalid, expired or revoked."
    LOGOUT_MISSING = 11, 401, "A bearer token is needed."

    PARTICIPANT_USER = 100, 422, "user_id must be 1 to 128 printable characters."
    PARTICIPANT_START = 101, 422, "rl_start_date must be a date inside the consent dates."
    PARTICIPANT_END = (
        102,
        422,
        "rl_end_date must be a date on or after rl_start_date, inside the consent dates.",
    )
    CONSENT_START = 103, 422, "consent_start_date must be a date."
    CONSENT_END = 104, 422, "consent_end_date must be a date on or after consent_start_date."
    MORNINGS = 105, 422, "morning_notification_time_start must be 7 times HHMM, Monday first."
    EVENINGS = (
        106,
        422,
        "evening_notification_time_start must be 7 times HHMM, each after that day's morning.",
    )
    PARTICIPANT_EXISTS = 108, 409, "This user_id is registered already."
    TIMEZONE = 110, 422, "timezone must be an IANA name."
    PARTICIPANT_ENDED = 111, 409, "The participant has ended the trial already."

    ACTION_USER = 200, 422, "user_id must be 1 to 128 printable characters."
    FINISHED_EMA = 201, 422, "finished_ema must be true or false."
    APP_USE_FLAG = 202, 422, "app_use_flag must be true or false."
    ACTION_UNKNOWN = 203, 404, "This user_id is not registered."
    ACTIVITY_RESPONSE = (
        209,
        422,
        "activity_question_response must be true or false where the survey was finished.",
    )
    CANNABIS_USE = 210, 422, "cannabis_use must be a list of numbers where the survey was finished."
    NOT_DECIDING = 211, 409, "The participant's phase or a pause of the study forbids new decisions."
    INDEX_PASSED = (
        212,
        409,
        "This decision_index has passed without a decision, or lies beyond the study's length.",
    )
    OUTSIDE_DATES = 213, 409, "The local date lies outside rl_start_date and rl_end_date."

    WINDOW_UNKNOWN = 300, 404, "This user_id is not registered."
    WINDOW_PHASE = 301, 409, "The participant has no window to end."
    WINDOW_UNDECIDED = 302, 409, "There is no decision at this decision_index."

    NOT_JSON = 900, 400, "The body is not one JSON document with unique names."
    NO_ROUTE = 901, 404, "There is no such route."
    METHOD = 902, 405, "This route does not take this method."
    TOO_LARGE = 903, 413, "The body is too large."
    MEDIA_TYPE = 904, 415, "The body must be application/json."
    FIELD = 905, 422, "A field is missing or wrong."
    TOO_MANY = 906, 429, "Too many tries: wait before the next one."
    DATABASE_AWAY = 907, 503, "The service cannot reach its database: try again."
    ROLE = 908, 403, "Your role may not do this."
    INTERNAL = 909, 500, "The service failed; the request id finds the reason in its log."
    UNKNOWN = 910, 404, "Nothing of that name or number in your study."
    BAD_REQUEST = 911, 400, "The request cannot be read."
    UNHEALTHY = 912, 503, "A part of the service does not answer."
    RANGE = 913, 416, "The file has no such part."
    EXPORT_UNFINISHED = 914, 409, "The export is not written yet, or failed."
    EXPORT_GONE = 915, 410, "The file of this export is no longer kept: ask for a new one."
    STORE_AWAY = 916, 503, "The service cannot reach its object store: try again."
    LINK_WRONG = 917, 403, "This link is none of this service's, or not for this request."
    LINK_OVER = 918, 403, "This link is over: ask for a new one."
    OBJECT_GONE = 919, 404, "There is no file at this link any more, or not yet."
    OBJECT_THERE = 920, 409, "There is a file at this link already."

    SAME_PERSON = 930, 409, "Another admin than the one who proposed it must approve."
    PROPOSAL_OVER = 931, 409, "The proposal is approved, rejected or expired already."
    STUDY_CLOSED = 932, 409, "The study is closed for good."
    POLICY_PRUNED = 933, 409, "The policy's blocks are no longer kept: it cannot serve."
    REMOVED_ALREADY = 934, 409, "The participant's data are removed from learning already."
    POLICY_OF_OTHERS = (
        935,
        409,
        "The policy knows other features than those of the protocol: it cannot serve.",
    )
    NEEDS_AMENDMENT = 940, 409, "These keys change only by an amendment, now that the trial has begun."
    PROTOCOL_SAME = 941, 409, "The protocol is this one already."
    PROTOCOL_WAITS = 942, 409, "A later version waits for its time: a new one cannot come before it."

    PROTOCOL_MOVED = 943, 409, "The protocol has got another version meanwhile: propose the change anew."

    def __init__(self, code: int, status: int, message: str) -> None:
        self.code = code
        self.status = status
        self.message = message


BY_CODE = {fault.code: fault for fault in Fault}
BY_STATUS = {
    404: Fault.NO_ROUTE,
    405: Fault.METHOD,
    413: Fault.TOO_LARGE,
    415: Fault.MEDIA_TYPE,
    416: Fault.RANGE,
    429: Fault.TOO_MANY,
}


class FieldError(BaseModel):
    """A field that is missing or wrong, and why; never the value itself."""

    field: str
    message: str


class Failure(BaseModel):
    """The one shape of every answer that is not a success."""

    status: Literal["fail"] = "fail"
    message: str
    error_code: int
    errors: list[FieldError] | None = None


class Refusal(Exception):
    """Ends a request with a fault; `errors` names the fields at fault, `retry_after` is in seconds."""

    def __init__(
        self,
        fault: Fault,
        message: str = "",
        errors: list[FieldError] | None = None,
        retry_after: int = RETRY_AFTER_SECONDS,
    ) -> None:
        super().__init__(fault.name)
        self.fault = fault
        self.message = message or fault.message
        self.errors = errors
        self.retry_after = retry_after


def answer(refusal: Refusal) -> Response:
    """The HTTP answer of a refusal."""
    fault = refusal.fault
    body = Failure(message=refusal.message, error_code=fault.code, errors=refusal.errors)
    response = Response(body.model_dump_json(exclude_none=True), fault.status, mimetype="application/json")
    if fault.status in {429, 503}:
        response.headers["Retry-After"] = str(refusal.retry_after)
    if fault.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    request.environ["kairos.error_code"] = fault.code
    return response


def _http(error: HTTPException) -> Response:
    fault = BY_STATUS.get(
        error.code or 500, Fault.BAD_REQUEST if (error.code or 500) < 500 else Fault.INTERNAL
    )
    response = answer(Refusal(fault))
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _database(error: Exception) -> Response:
    """Where the database cannot be reached or cannot write now: to be tried again. All else is our fault."""
    code = db_errors.code_of(error)
    may_pass = db_errors.is_away(error) or code == UNSETTLED
    if isinstance(error, IntegrityError | InternalError) and not may_pass:
        return _unforeseen(error)
    if code == db_errors.DISK_FULL:
        log.error("the database's disk is full")
    else:
        log.warning("database away", error=type(error).__name__, sqlstate=code)
    return answer(Refusal(Fault.DATABASE_AWAY))


def _store(error: StoreAway) -> Response:
    log.warning("object store away", reason=error.strerror)
    return answer(Refusal(Fault.STORE_AWAY))


def _unforeseen(error: Exception) -> Response:
    log.error("request failed", error=where(error))
    return answer(Refusal(Fault.INTERNAL))


def install(app: Flask) -> None:
    """Give every error of the application the one shape."""
    app.register_error_handler(Refusal, answer)
    app.register_error_handler(HTTPException, _http)
    driver = (psycopg2.OperationalError, psycopg2.InterfaceError)
    for kind in (OperationalError, InterfaceError, IntegrityError, InternalError, *driver):
        app.register_error_handler(kind, _database)
    app.register_error_handler(StoreAway, _store)
    app.register_error_handler(ParseException, lambda _error: answer(Refusal(Fault.BAD_REQUEST)))
    app.register_error_handler(Exception, _unforeseen)

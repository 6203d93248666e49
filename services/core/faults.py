"""The faults of the machinery. Codes below 900 are those of the MiWaves service."""

from services.core.refusals import Fault


class CoreFault(Fault):
    """A fault of the machinery: error_code, HTTP status and message."""

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

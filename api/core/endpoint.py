"""What turns a typed function into a route: checked body and query, known caller, typed answer.

A view names what it wants by parameter: `body` and `query` (pydantic models), `caller` (who asks), `key` (the
Idempotency-Key) and the variables of its path. The same types make the OpenAPI document.
"""

import functools
import json
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, ValidationError

from api.core import auth
from api.core.errors import Fault, FieldError, Refusal
from api.core.fields import code_of

KEY = re.compile(r"[ -~]{1,128}")
HIGHEST_ID = 2**63 - 1
JSON = "application/json"
MOST_ERRORS = 20


class Body(BaseModel):
    """A request body of the core routes: strict types, unknown fields ignored (phones age)."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class StrictBody(Body):
    """A request body of the management routes: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class Query(BaseModel):
    """Query parameters: text turned into numbers, unknown names are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Reply(BaseModel):
    """The body of a success."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    status: Literal["success"] = "success"


@dataclass(frozen=True)
class Endpoint:
    """One operation of the API, as code and document both need it.

    roles: None where the view itself sees to who may. wants: names of the view's parameters. media: of a
    success. reads_token: without roles, the view asks for the token.
    """

    method: str
    path: str
    view: Callable[..., BaseModel | Response]
    status: int
    roles: frozenset[str] | None
    faults: tuple[Fault, ...]
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    reply: type[BaseModel]
    wants: frozenset[str]
    media: str
    reads_token: bool = False

    @property
    def is_secured(self) -> bool:
        """Whether a token is asked for."""
        return self.roles is not None or self.reads_token


class Domain(Blueprint):
    """A blueprint whose routes are endpoints."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"api.{name}")
        self.endpoints: list[Endpoint] = []

    def operation(
        self,
        method: str,
        path: str,
        *,
        roles: set[str] | None,
        status: int = 200,
        faults: tuple[Fault, ...] = (),
        standing_is_read_by_view: bool = False,
        media: str = JSON,
        reads_token: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a view. `standing_is_read_by_view`: by its own first statement. A view of another `media`
        than JSON returns the response itself."""

        def register(view: Callable[..., Any]) -> Callable[..., Any]:
            hints = typing.get_type_hints(view)
            made = Endpoint(
                method,
                path,
                view,
                status,
                None if roles is None else frozenset(roles),
                faults,
                hints.get("body"),
                hints.get("query"),
                hints["return"],
                frozenset(hints),
                media,
                reads_token,
            )
            self.endpoints.append(made)
            run = functools.partial(_run, made, not standing_is_read_by_view)
            self.add_url_rule(path, view.__name__, run, methods=[method], provide_automatic_options=False)
            return view

        return register


def _run(endpoint: Endpoint, check_standing: bool, **path: int | str) -> Response:
    arguments: dict[str, Any] = dict(path)
    if endpoint.roles is not None:
        caller = auth.caller(endpoint.roles)
        if check_standing:
            auth.check_standing(caller)
        if "caller" in endpoint.wants:
            arguments["caller"] = caller
    if any(isinstance(value, int) and value > HIGHEST_ID for value in path.values()):
        raise Refusal(Fault.UNKNOWN)
    try:
        arguments |= _given(endpoint)
    except Refusal:
        if "caller" in arguments and not check_standing:
            auth.check_standing(arguments["caller"])  # who may not call is told that, whatever the body
        raise
    return _answer(endpoint.view(**arguments), endpoint.status)


def _given(endpoint: Endpoint) -> dict[str, Any]:
    """What the view wants of the request, checked. Raises Refusal."""
    given = dict[str, Any]()
    if endpoint.body is not None:
        given["body"] = _body(endpoint.body)
    if endpoint.query is not None:
        given["query"] = _query(endpoint.query)
    if "key" in endpoint.wants:
        given["key"] = _idempotency_key()
    return given


def _answer(reply: BaseModel | Response, status: int) -> Response:
    if isinstance(reply, Response):
        return reply
    return Response(reply.model_dump_json(), status, content_type=JSON)


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not KEY.fullmatch(key):
        told = "1 to 128 printable ASCII characters"
        raise Refusal(Fault.FIELD, errors=[FieldError(field="Idempotency-Key", message=told)])
    return key


def _body(model: type[BaseModel]) -> BaseModel:
    if request.mimetype != "application/json":
        raise Refusal(Fault.MEDIA_TYPE)
    raw = request.get_data(cache=False)
    if request.content_length is None and request.environ["wsgi.input"].read(1):
        raise Refusal(Fault.TOO_LARGE)  # a body in chunks that goes on where the read one was cut off
    try:
        given = _document.decode(raw.decode())
    except (ValueError, RecursionError):
        raise Refusal(Fault.NOT_JSON) from None
    return _checked(functools.partial(model.model_validate_json, raw), given, model)


def _query(model: type[BaseModel]) -> BaseModel:
    given = request.args.to_dict(flat=False)
    twice = [FieldError(field=name, message="stands twice") for name, values in given.items() if values[1:]]
    if twice:
        raise Refusal(Fault.FIELD, errors=twice)
    named = {name: values[0] for name, values in given.items()}
    return _checked(functools.partial(model.model_validate, named), named, model)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for `json.loads`. Raises ValueError where a name stands twice."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_document = json.JSONDecoder(object_pairs_hook=unique, parse_constant=_refuse)


def _checked(validate: Callable[[], BaseModel], given: Any, model: type[BaseModel]) -> BaseModel:
    try:
        return validate()
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        raise Refusal(Fault.NOT_JSON)
    told = dict[str, list[str]]()
    for one in found:
        named = _name(one["loc"], given, is_missing=one["type"] == "missing")
        told.setdefault(named, []).append(one["msg"].removeprefix("Value error, "))
    errors = [FieldError(field=field, message=", or ".join(problems)) for field, problems in told.items()]
    first = found[0]["loc"]
    fault = code_of(model.model_fields.get(str(first[0])) if first else None)
    raise Refusal(fault, errors=errors[:MOST_ERRORS])


def _name(place: tuple[int | str, ...], given: Any, is_missing: bool) -> str:
    """The dotted name of the field at `place`; pydantic's also names the type that it tried there."""
    names = []
    for step in place:
        if isinstance(given, dict) and step in given:
            given = given[step]
        elif isinstance(given, list) and isinstance(step, int):
            given = given[step] if step < len(given) else None
        elif not (is_missing and step == place[-1]):
            continue
        names.append(str(step))
    return ".".join(names)

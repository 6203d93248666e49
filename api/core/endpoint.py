"""Endpoints: a typed function becomes a route with checked body and query, a caller and a typed answer.

A view names what it wants by parameter: `body` and `query` (pydantic models), `caller` (the token's bearer),
`key` (the Idempotency-Key) and the variables of its path. The same types make the OpenAPI document.
"""

import json
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.core import auth
from api.core.examples import Example
from api.core.fields import code_of
from services.core.faults import CoreFault
from services.core.refusals import Fault, FieldError, Refusal

NO_EXAMPLES: Mapping[str, Example] = MappingProxyType({})
KEY = re.compile(r"[ -~]{1,128}")
HIGHEST_ID = 2**63 - 1
JSON = "application/json"
OF_EVERY_TOKEN = {CoreFault.TOKEN_MISSING, CoreFault.TOKEN_MALFORMED, CoreFault.TOKEN_INVALID, CoreFault.ROLE}
OF_EVERY_BODY = {CoreFault.NOT_JSON, CoreFault.MEDIA_TYPE}
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


def _paging_last(schema: dict[str, Any]) -> None:
    """Put the filters of a list before `after` and `limit`, which inheritance puts first."""
    properties = schema["properties"]
    for name in Page.model_fields:
        properties[name] = properties.pop(name)


class Page(Query):
    """A page of a list by number: at most `limit` rows after number `after` (0: from the first)."""

    model_config = ConfigDict(json_schema_extra=_paging_last)

    after: int = Field(default=0, ge=0, le=HIGHEST_ID)
    limit: int = Field(default=100, ge=1, le=1000)


class Reply(BaseModel):
    """The body of a success."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    status: Literal["success"] = "success"


@dataclass(frozen=True)
class Endpoint:
    """One operation of the API, as the running service and the OpenAPI document both need it.

    roles: None where the view checks permission itself. wants: names of the view's parameters. media: the
    content type of a success. standing_is_read_by_view: the view's own first statement reads whether the
    token still stands, so that nothing is asked of the database before it. reads_token: the view has no roles
    and yet asks for a token.
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
    standing_is_read_by_view: bool = False
    reads_token: bool = False
    example: Example | None = None

    @property
    def all_faults(self) -> set[Fault]:
        """Every way in which the operation may refuse a call, with those that it shares with others."""
        faults = {*self.faults, CoreFault.DATABASE_AWAY}
        if self.roles is not None:
            faults |= OF_EVERY_TOKEN
        if self.method != "GET":
            faults.add(CoreFault.TOO_LARGE)
        if self.body is not None:
            faults |= OF_EVERY_BODY
        for model in (self.body, self.query):
            if model is not None:
                faults |= {code_of(field) for field in model.model_fields.values()} | {CoreFault.FIELD}
        if "key" in self.wants:
            faults.add(CoreFault.FIELD)
        return faults

    @property
    def is_secured(self) -> bool:
        """The operation needs a token."""
        return self.roles is not None or self.reads_token

    def answer(self, **path: int | str) -> Response:
        """Answer the current request, with the variables of its path. Raises Refusal."""
        arguments: dict[str, Any] = dict(path)
        if self.roles is not None:
            caller = auth.caller(self.roles)
            if not self.standing_is_read_by_view:
                auth.check_standing(caller)
            if "caller" in self.wants:
                arguments["caller"] = caller
        if any(
            isinstance(value, int) and value > HIGHEST_ID for value in path.values()
        ):  # the database has no such number
            raise Refusal(CoreFault.UNKNOWN)
        try:
            arguments |= self._inputs()
        except Refusal:
            if "caller" in arguments and self.standing_is_read_by_view:
                # a caller who may not do this is told so, however bad the rest of the request
                auth.check_standing(arguments["caller"])
            raise
        reply = self.view(**arguments)
        if isinstance(reply, Response):
            return reply
        return Response(reply.model_dump_json(), self.status, content_type=JSON)

    def _inputs(self) -> dict[str, Any]:
        """Read and check the parts of the request that the view asks for. Raises Refusal."""
        inputs: dict[str, Any] = {}
        if self.body is not None:
            inputs["body"] = _read_body(self.body)
        if self.query is not None:
            values = request.args.to_dict(flat=False)
            repeats = [
                FieldError(field=name, message="stands twice") for name, texts in values.items() if texts[1:]
            ]
            if repeats:
                raise Refusal(CoreFault.FIELD, errors=repeats)
            parameters = {name: texts[0] for name, texts in values.items()}
            inputs["query"] = _checked(self.query.model_validate, parameters, parameters, self.query)
        if "key" in self.wants:
            key = request.headers.get("Idempotency-Key")
            if key is not None and not KEY.fullmatch(key):
                error = FieldError(field="Idempotency-Key", message="1 to 128 printable ASCII characters")
                raise Refusal(CoreFault.FIELD, errors=[error])
            inputs["key"] = key
        return inputs


class Domain(Blueprint):
    """A blueprint whose routes are endpoints: one subject of the API, a tag of its document.

    about: its description, of which the first line is shown. examples: calls by the names of their views.
    """

    def __init__(self, name: str, about: str | None, examples: Mapping[str, Example] = NO_EXAMPLES) -> None:
        super().__init__(name, f"api.{name}")
        self.about = (about or "").partition("\n")[0]
        self.endpoints: list[Endpoint] = []
        self._examples = examples

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
        """Register a view as an Endpoint. A view of another `media` than JSON returns the response itself."""

        def register(view: Callable[..., Any]) -> Callable[..., Any]:
            hints = typing.get_type_hints(view)
            endpoint = Endpoint(
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
                standing_is_read_by_view,
                reads_token,
                self._examples.get(view.__name__),
            )
            self.endpoints.append(endpoint)
            self.add_url_rule(
                path, view.__name__, endpoint.answer, methods=[method], provide_automatic_options=False
            )
            return view

        return register


def _read_body(model: type[BaseModel]) -> BaseModel:
    """Read and check the body of the current request. Raises Refusal."""
    if request.mimetype != "application/json":
        raise Refusal(CoreFault.MEDIA_TYPE)
    raw = request.get_data(cache=False)
    if request.content_length is None and request.environ["wsgi.input"].read(1):
        raise Refusal(CoreFault.TOO_LARGE)  # a body in chunks that goes on where the read one was cut off
    try:
        # pydantic reads the bytes itself, but would let a name stand twice
        document = _decoder.decode(raw.decode())
    except (ValueError, RecursionError):
        raise Refusal(CoreFault.NOT_JSON) from None
    return _checked(model.model_validate_json, raw, document, model)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object for `json.loads`. Raises ValueError where a name stands twice."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _refuse_constant(constant: str) -> Any:
    """Refuse NaN and Infinity, which Python's parser takes although JSON has none."""
    raise ValueError(f"{constant} is not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=unique, parse_constant=_refuse_constant)


def _checked(
    validate: Callable[[Any], BaseModel], source: Any, document: Any, model: type[BaseModel]
) -> BaseModel:
    """Return the model that `validate` makes of `source`. Raises Refusal with the fields at fault.

    document: the same content as plain objects, in which the fields at fault are looked up.
    """
    try:
        return validate(source)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    if details[0]["type"] == "json_invalid":
        raise Refusal(CoreFault.NOT_JSON)
    problems: dict[str, list[str]] = {}
    for detail in details:
        name = _dotted_name(detail["loc"], document, is_missing=detail["type"] == "missing")
        problems.setdefault(name, []).append(detail["msg"].removeprefix("Value error, "))
    errors = [FieldError(field=name, message=", or ".join(texts)) for name, texts in problems.items()]
    first = details[0]["loc"]
    fault = code_of(model.model_fields.get(str(first[0])) if first else None)
    raise Refusal(fault, errors=errors[:MOST_ERRORS])


def _dotted_name(place: tuple[int | str, ...], document: Any, is_missing: bool) -> str:
    """Return the dotted name of the field at `place`, which in pydantic's words has steps that are types."""
    names = []
    for step in place:
        if isinstance(document, dict) and step in document:
            document = document[step]
        elif isinstance(document, list) and isinstance(step, int):
            document = document[step] if step < len(document) else None
        elif not (is_missing and step == place[-1]):
            continue  # the name of a type that pydantic tried there, as in a union
        names.append(str(step))
    return ".".join(names)

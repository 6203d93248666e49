"""The OpenAPI 3.1 document, made from the endpoints themselves."""

import inspect
import re
import sys
from collections.abc import Iterable
from typing import Any

from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api.core.endpoint import HIGHEST_ID, JSON, KEY, Domain, Endpoint
from api.core.errors import Failure, Fault
from api.core.fields import code_of
from api.trial.examples import EXAMPLES
from version import VERSION

EVERY_TOKEN = (Fault.TOKEN_MISSING, Fault.TOKEN_MALFORMED, Fault.TOKEN_INVALID, Fault.ROLE)
EVERY_BODY = (Fault.NOT_JSON, Fault.MEDIA_TYPE)
ABOUT = """The decision service for adaptive-intervention trials: when to intervene, randomised and learnt.

Success is `{"status": "success", ...}`, failure `{"status": "fail", "message", "error_code"}`, with `errors`
where fields are at fault. Times are UTC. Every answer carries `X-Request-ID`, the request's own or a new one.
A call that has no answer is repeated: with decision_index or an Idempotency-Key at any time."""
TEXT, WHOLE = {"type": "string"}, {"type": "integer", "minimum": 0}
HEADERS: dict[str, Any] = {
    "X-Request-ID": {"description": "Finds the request in the service's log.", "schema": TEXT},
    "Retry-After": {"description": "Seconds to wait before the next try.", "schema": WHOLE},
    "WWW-Authenticate": {"description": "The scheme that is asked for.", "schema": TEXT},
}
IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key means the same decision point, whenever and how often the call is repeated.",
    "schema": {"type": "string", "pattern": f"^{KEY.pattern}$"},
    "example": "3f0c2f0e-6a4b-4a52-9b86-0d1f6a3f3f0e",
}


def document(domains: Iterable[Domain]) -> dict[str, Any]:
    """The document of all operations of these domains."""
    endpoints = [endpoint for domain in domains for endpoint in domain.endpoints]
    schemas, definitions = _schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", endpoint.path)
        operation = _operation(endpoint, schemas, definitions)
        paths.setdefault(path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Kairos",
            "version": VERSION,
            "description": ABOUT,
            "license": {"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        },
        "servers": [{"url": "/"}],
        "tags": _tags(endpoints),
        "paths": paths,
        "components": {
            "schemas": definitions,
            "headers": HEADERS,
            "examples": {fault.name: _example(fault) for fault in Fault},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _schemas(endpoints: list[Endpoint]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """References to the schemas of all bodies, queries and replies, and the schemas by name."""
    modes: list[tuple[Any, JsonSchemaMode]] = [(Failure, "serialization")]
    for endpoint in endpoints:
        if endpoint.media == JSON:
            modes.append((endpoint.reply, "serialization"))
        modes += [(model, "validation") for model in (endpoint.body, endpoint.query) if model]
    schemas, definitions = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    return schemas, definitions["$defs"]


def _tag(endpoint: Endpoint) -> str:
    return endpoint.view.__module__.rpartition(".")[2]


def _tags(endpoints: list[Endpoint]) -> list[dict[str, str]]:
    modules = dict.fromkeys(endpoint.view.__module__ for endpoint in endpoints)
    told = {name: (sys.modules[name].__doc__ or "").partition("\n")[0] for name in modules}
    return [{"name": name.rpartition(".")[2], "description": text} for name, text in told.items()]


def _operation(endpoint: Endpoint, schemas: dict[Any, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    text = inspect.getdoc(endpoint.view) or ""
    operation: dict[str, Any] = {
        "operationId": endpoint.view.__name__,
        "tags": [_tag(endpoint)],
        "summary": text.partition("\n")[0],
        "description": text,
        "security": [{"bearer": []}] if endpoint.is_secured else [],
        "parameters": _parameters(endpoint, schemas, definitions),
        "responses": _responses(endpoint, schemas),
    }
    if endpoint.roles is not None:
        operation["x-roles"] = sorted(endpoint.roles)
        operation["description"] += f"\n\nRoles: {', '.join(sorted(endpoint.roles))}."
    if endpoint.body is not None:
        content: dict[str, Any] = {"schema": schemas[endpoint.body, "validation"]}
        if endpoint.view.__name__ in EXAMPLES:
            content["example"] = EXAMPLES[endpoint.view.__name__].asked
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    return operation


def _parameters(
    endpoint: Endpoint, schemas: dict[Any, Any], definitions: dict[str, Any]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {**WHOLE, "maximum": HIGHEST_ID}}
        for name in re.findall(r"<int:(\w+)>", endpoint.path)
    ]
    found += [
        {"name": name, "in": "path", "required": True, "schema": TEXT}
        for name in re.findall(r"<path:(\w+)>", endpoint.path)
    ]
    if endpoint.query is not None:
        schema = definitions[schemas[endpoint.query, "validation"]["$ref"].rpartition("/")[2]]
        needed = schema.get("required", ())
        found += [
            {"name": name, "in": "query", "schema": value} | ({"required": True} if name in needed else {})
            for name, value in schema["properties"].items()
        ]
    if "key" in endpoint.wants:
        found.append(IDEMPOTENCY_KEY)
    return found


def _responses(endpoint: Endpoint, schemas: dict[Any, Any]) -> dict[str, Any]:
    if endpoint.media != JSON:
        return _file(endpoint, schemas)
    content: dict[str, Any] = {"schema": schemas[endpoint.reply, "serialization"]}
    if endpoint.view.__name__ in EXAMPLES:
        content["example"] = EXAMPLES[endpoint.view.__name__].answered
    responses = {str(endpoint.status): _response("Done.", content, ["X-Request-ID"])}
    return responses | _failures(endpoint, schemas)


def _file(endpoint: Endpoint, schemas: dict[Any, Any]) -> dict[str, Any]:
    """Of an operation that sends a file, whole or in part."""
    content = {endpoint.media: {"schema": {"type": "string", "format": "binary"}}}
    told = {"200": "The file.", "206": "The part of the file that `Range` asks for."}
    whole = {
        code: _response(text, {}, ["X-Request-ID"]) | {"content": content} for code, text in told.items()
    }
    same = {"304": {**_response("As before.", {}, ["X-Request-ID"]), "content": {}}}
    return whole | same | _failures(endpoint, schemas)


def _failures(endpoint: Endpoint, schemas: dict[Any, Any]) -> dict[str, Any]:
    responses = {}
    faults = _faults(endpoint)
    for status in sorted({fault.status for fault in faults}):
        told = sorted({fault for fault in faults if fault.status == status}, key=lambda fault: fault.code)
        responses[str(status)] = _failure(status, told, schemas[Failure, "serialization"])
    return responses


def _faults(endpoint: Endpoint) -> set[Fault]:
    """Every way an operation may say no."""
    faults = {*endpoint.faults, Fault.DATABASE_AWAY}
    if endpoint.roles is not None:
        faults |= set(EVERY_TOKEN)
    if endpoint.method != "GET":
        faults.add(Fault.TOO_LARGE)
    if endpoint.body is not None:
        faults |= set(EVERY_BODY)
    for model in (endpoint.body, endpoint.query):
        if model is not None:
            faults |= {code_of(field) for field in model.model_fields.values()} | {Fault.FIELD}
    if "key" in endpoint.wants:
        faults.add(Fault.FIELD)
    return faults


def _failure(status: int, faults: list[Fault], schema: dict[str, Any]) -> dict[str, Any]:
    headers = ["X-Request-ID"]
    headers += ["Retry-After"] if status in {429, 503} else []
    headers += ["WWW-Authenticate"] if status == 401 else []
    examples = {fault.name: {"$ref": f"#/components/examples/{fault.name}"} for fault in faults}
    told = "\n".join(f"* {fault.code}: {fault.message}" for fault in faults)
    return _response(told, {"schema": schema, "examples": examples}, headers)


def _example(fault: Fault) -> dict[str, Any]:
    value = Failure(message=fault.message, error_code=fault.code).model_dump(exclude_none=True)
    return {"summary": f"{fault.code}: {fault.message}", "value": value}


def _response(description: str, content: dict[str, Any], headers: list[str]) -> dict[str, Any]:
    return {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {"application/json": content},
    }

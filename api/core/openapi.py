"""The OpenAPI 3.1 document, made from the endpoints themselves."""

import inspect
import re
from collections.abc import Iterable
from typing import Any

from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api.core.endpoint import HIGHEST_ID, JSON, KEY, Domain, Endpoint
from api.core.errors import Failure
from services.core.refusals import all_faults
from version import VERSION

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
    """Make the document of all operations of these domains."""
    domains = list(domains)
    schemas, definitions = _schemas([endpoint for domain in domains for endpoint in domain.endpoints])
    paths: dict[str, dict[str, Any]] = {}
    for domain in domains:
        for endpoint in domain.endpoints:
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", endpoint.path)
            operation = _operation(endpoint, domain.name, schemas, definitions)
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
        "tags": [{"name": domain.name, "description": domain.about} for domain in domains],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "headers": HEADERS,
            "examples": {
                fault.name: {
                    "summary": f"{fault.code}: {fault.message}",
                    "value": Failure(message=fault.message, error_code=fault.code).model_dump(
                        exclude_none=True
                    ),
                }
                for fault in all_faults()
            },
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _schemas(endpoints: list[Endpoint]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Return references to the schemas of all bodies, queries and replies, and the schemas by name."""
    modes: list[tuple[Any, JsonSchemaMode]] = [(Failure, "serialization")]
    for endpoint in endpoints:
        if endpoint.media == JSON:
            modes.append((endpoint.reply, "serialization"))
        modes += [(model, "validation") for model in (endpoint.body, endpoint.query) if model]
    schemas, definitions = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    return schemas, definitions["$defs"]


def _operation(
    endpoint: Endpoint, tag: str, schemas: dict[Any, Any], definitions: dict[str, Any]
) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {**WHOLE, "maximum": HIGHEST_ID}}
        for name in re.findall(r"<int:(\w+)>", endpoint.path)
    ]
    parameters += [
        {"name": name, "in": "path", "required": True, "schema": TEXT}
        for name in re.findall(r"<path:(\w+)>", endpoint.path)
    ]
    if endpoint.query is not None:
        schema = definitions[schemas[endpoint.query, "validation"]["$ref"].rpartition("/")[2]]
        needed = schema.get("required", ())
        parameters += [
            {"name": name, "in": "query", "schema": value} | ({"required": True} if name in needed else {})
            for name, value in schema["properties"].items()
        ]
    if "key" in endpoint.wants:
        parameters.append(IDEMPOTENCY_KEY)
    text = inspect.getdoc(endpoint.view) or ""
    operation: dict[str, Any] = {
        "operationId": endpoint.view.__name__,
        "tags": [tag],
        "summary": text.partition("\n")[0],
        "description": text,
        "security": [{"bearer": []}] if endpoint.is_secured else [],
        "parameters": parameters,
        "responses": _responses(endpoint, schemas),
    }
    if endpoint.roles is not None:
        operation["x-roles"] = sorted(endpoint.roles)
        operation["description"] += f"\n\nRoles: {', '.join(sorted(endpoint.roles))}."
    if endpoint.body is not None:
        content: dict[str, Any] = {"schema": schemas[endpoint.body, "validation"]}
        if endpoint.example is not None:
            content["example"] = endpoint.example.body
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    return operation


def _responses(endpoint: Endpoint, schemas: dict[Any, Any]) -> dict[str, Any]:
    """Return the successes and the failures of an operation, by HTTP status."""
    content: dict[str, Any]
    if endpoint.media == JSON:
        content = {"schema": schemas[endpoint.reply, "serialization"]}
        if endpoint.example is not None:
            content["example"] = endpoint.example.reply
        responses = {str(endpoint.status): _response("Done.", {JSON: content})}
    else:  # a file, which is sent whole or in part
        content = {endpoint.media: {"schema": {"type": "string", "format": "binary"}}}
        responses = {
            "200": _response("The file.", content),
            "206": _response("The part of the file that `Range` asks for.", content),
            "304": _response("As before.", {}),
        }
    faults = endpoint.all_faults
    for status in sorted({fault.status for fault in faults}):
        of_status = sorted(
            (fault for fault in faults if fault.status == status), key=lambda fault: fault.code
        )
        text = "\n".join(f"* {fault.code}: {fault.message}" for fault in of_status)
        examples = {fault.name: {"$ref": f"#/components/examples/{fault.name}"} for fault in of_status}
        content = {"schema": schemas[Failure, "serialization"], "examples": examples}
        headers = ["Retry-After"] if status in {429, 503} else []
        headers += ["WWW-Authenticate"] if status == 401 else []
        responses[str(status)] = _response(text, {JSON: content}, *headers)
    return responses


def _response(description: str, content: dict[str, Any], *headers: str) -> dict[str, Any]:
    """Describe one response; `content` is by media type, and every response has an X-Request-ID."""
    return {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *headers)},
        "content": content,
    }

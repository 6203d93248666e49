"""A page to read and try the OpenAPI document. Its scripts are this server's: it needs no network."""

import json
from collections.abc import Iterable
from importlib.resources import files

from flask import Flask, Response, request, send_from_directory

from api.core import openapi
from api.core.endpoint import Domain

ASSETS = files("flask_openapi_swagger") / "templates" / "swagger"
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Kairos API</title>
<link rel="stylesheet" href="docs/css/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/js/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null,
  deepLinking: true,
})
"""
HEADERS = {
    # Swagger UI needs inline styles and the pictures inside its style sheet, and nothing from elsewhere
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def install(app: Flask, domains: Iterable[Domain]) -> None:
    """Serve /openapi.json and /docs."""
    document = json.dumps(openapi.document(domains))
    app.add_url_rule("/openapi.json", "openapi", lambda: Response(document, mimetype="application/json"))
    app.add_url_rule(
        "/docs/start.js", "docs_start", lambda: _protected(Response(START, mimetype="text/javascript"))
    )
    app.add_url_rule(
        "/docs/<path:name>",
        "docs_assets",
        lambda name: _protected(send_from_directory(str(ASSETS), name)),
    )

    def page() -> Response:
        # the page's addresses are relative, for the sake of a proxy's prefix: under /docs/ they would miss
        if request.path.endswith("/"):
            return Response(status=308, headers={"Location": "../docs"})
        return _protected(Response(PAGE, mimetype="text/html"))

    app.add_url_rule("/docs", "docs", page)


def _protected(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response

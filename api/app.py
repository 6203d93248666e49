"""The WSGI application: its domains, its limits, its log line per request."""

import os
import re
import time

import structlog
from flask import Flask, Response, request
from structlog.contextvars import bind_contextvars, clear_contextvars
from werkzeug.middleware.proxy_fix import ProxyFix

import logs
from api.core import accounts, backup, docs_page, errors, health, jobs, keys, metrics, objects
from api.core import commands as core_commands
from api.core.endpoint import Domain
from api.oversight import audit, conduct, gauges, incidents, proposals, protocol_change
from api.oversight import commands as oversight_commands
from api.research import commands as research_commands
from api.research import exports
from api.trial import actions, decisions, participants, policies, protocols, refits, studies, windows
from api.trial import commands as trial_commands
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from settings import settings

DOMAINS: tuple[Domain, ...] = (
    health.domain,
    accounts.domain,
    participants.domain,
    actions.domain,
    windows.domain,
    decisions.domain,
    conduct.domain,
    proposals.domain,
    audit.domain,
    incidents.domain,
    jobs.domain,
    refits.domain,
    policies.domain,
    exports.domain,
    objects.domain,
    studies.domain,
    protocols.domain,
    protocol_change.domain,
)
COMMANDS = (
    trial_commands.study_commands,
    trial_commands.protocol_commands,
    core_commands.clients,
    keys.commands,
    core_commands.database,
    oversight_commands.proposal_commands,
    oversight_commands.audit_commands,
    core_commands.dump,
    research_commands.export,
    backup.backup,
    backup.restore,
)
LARGEST_BODY = 64 * 1024
UPLOAD = "objects.put_object"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
log = structlog.get_logger()


def create_app() -> Flask:
    """Put the application together; its settings are checked before the first request."""
    hops = settings().proxy_hops
    app = Flask("api", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # the redirect that it answers with is HTML
    if hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=0)  # type: ignore[method-assign]
    logs.as_json()
    app.before_request(_begin)
    app.after_request(_end)
    errors.install(app)
    for domain in DOMAINS:
        app.register_blueprint(domain)
    docs_page.install(app, DOMAINS)
    metrics.install(app)
    metrics.GAUGES[:] = gauges.READERS
    for command in COMMANDS:
        app.cli.add_command(command)
    return app


def _begin() -> None:
    environ = request.environ
    header = environ.get("HTTP_X_REQUEST_ID", "")
    request_id = header if REQUEST_ID.fullmatch(header) else os.urandom(16).hex()
    environ["kairos.request_id"], environ["kairos.began"] = request_id, time.perf_counter()
    clear_contextvars()
    bind_contextvars(request_id=request_id)
    is_upload = request.endpoint == UPLOAD  # whose size stands in the signed link
    if (request.content_length or 0) > LARGEST_BODY and not is_upload:  # also where nobody would read it
        raise Refusal(CoreFault.TOO_LARGE)


def _end(response: Response) -> Response:
    """Count and log the request, and give the answer its id."""
    environ, rule = request.environ, request.url_rule
    route = rule.rule if rule else None  # never the path itself or a body: they may name a person
    seconds = time.perf_counter() - environ["kairos.began"]
    metrics.observe(route, response.status_code, seconds)
    response.headers["X-Request-ID"] = environ["kairos.request_id"]
    log.info(
        "request",
        method=environ["REQUEST_METHOD"],
        route=route,
        http_status=response.status_code,
        error_code=environ.get("kairos.error_code"),
        study_id=environ.get("kairos.study_id"),
        ms=round(1000 * seconds, 2),
    )
    return response

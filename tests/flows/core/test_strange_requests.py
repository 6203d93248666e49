"""Headers, methods, paths and queries that no honest client sends: always an answer of our one shape."""

from collections.abc import Callable

import pytest
from werkzeug.test import TestResponse

from api.core.endpoint import Endpoint
from tests.flows.core.test_fuzz import ENDPOINTS, document, is_refusal, name_of, send, study
from tests.support.study import Study

__all__ = ["send", "study"]  # fixtures
KEEPING = [endpoint for endpoint in ENDPOINTS if endpoint.path != "/auth/logout"]  # the token of these tests
BAD_HEADERS = {
    "Idempotency-Key": ["", "x" * 129, "\x01", "caf\xe9", "\t"],
    "Authorization": ["Bearer \xff\xfe", "Bearer " + "x" * 9000, "\x01", "Negotiate " + "A" * 500],
    "X-Request-ID": ["x" * 200, "\x01", "a b", "caf\xe9", "<script>"],
    "Content-Length": ["abc", "-1"],
    "Host": ["a b", "[", "\xe9"],
    "X-Forwarded-For": ["not an address", "'; DROP TABLE clients; --"],
    "Content-Type": ["application/json; charset=\xe9", "application/json; boundary", "application/json;;"],
}


@pytest.mark.parametrize("endpoint", KEEPING, ids=name_of)
def test_strange_headers_are_answered_in_our_shape(
    study: Study, send: Callable[..., TestResponse], endpoint: Endpoint
) -> None:
    raw = document(endpoint).encode() if endpoint.body is not None else b""
    for header, values in BAD_HEADERS.items():
        for value in values:
            answer = send(endpoint, raw, **{header.replace("-", "_"): value})
            fine = answer.status_code in {endpoint.status, 503} or is_refusal(answer)
            assert fine, (header, value, answer.text)
            assert answer.headers["X-Request-ID"].isprintable()
            assert "<script>" not in answer.headers["X-Request-ID"]


@pytest.mark.parametrize("endpoint", [e for e in KEEPING if e.body is None], ids=name_of)
def test_a_body_that_nobody_asked_for_does_no_harm(
    send: Callable[..., TestResponse], endpoint: Endpoint
) -> None:
    for raw in (b"\xff" * 1000, b"[" * 50_000, b"x" * 1_000_000):
        answer = send(endpoint, raw)
        assert answer.status_code in {endpoint.status, 503} or is_refusal(answer)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "HEAD"])
def test_another_method_is_refused_with_those_that_are_allowed(study: Study, method: str) -> None:
    answer = study.service.app.test_client().open("/actions", method=method)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert method == "HEAD" or answer.get_json()["error_code"] == 902


@pytest.mark.parametrize(
    "path",
    [
        *("/none", "/jobs/x", "/jobs/-1", "/jobs/1.5", "/jobs/%00", "/jobs/1/2", "//jobs/1"),
        *("/%ff", "/\u00e9", "/jobs/" + "9" * 5000, "/jobs/" + str(2**63), "/../settings.py", "/<script>"),
    ],
)
def test_a_path_that_leads_nowhere_is_answered_in_our_shape(study: Study, path: str) -> None:
    answer = study.call("GET", path, role="admin")
    assert is_refusal(answer)
    assert answer.status_code == 404
    assert "script" not in answer.text


@pytest.mark.parametrize(
    "query",
    [
        *("after=x", "after=-1", "after=" + "9" * 400, "after=1e3", "after=NaN", "limit=0", "limit=1001"),
        *("limit=1&limit=2", "state=none", "unknown=1", "%00=1", "after=%00", "after=%ff", "state[]=failed"),
    ],
)
def test_a_query_that_means_nothing_is_refused(study: Study, query: str) -> None:
    answer = study.call("GET", f"/windows?{query}", role="admin")
    assert is_refusal(answer)
    assert answer.status_code == 422

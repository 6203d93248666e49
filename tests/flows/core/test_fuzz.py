"""Bodies and headers that no honest client sends: always a 4xx, always of our one shape."""

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from api.app import DOMAINS
from api.core import examples as core_examples
from api.core.endpoint import Endpoint
from api.trial import examples as trial_examples
from local.embedded import Embedded
from services.core.refusals import fault_of
from tests.support.configured import configured, database
from tests.support.study import Study, begin

EXAMPLES = {**core_examples.EXAMPLES, **trial_examples.EXAMPLES}
ENDPOINTS = [endpoint for domain in DOMAINS for endpoint in domain.endpoints]
WITH_BODY = [endpoint for endpoint in ENDPOINTS if endpoint.body is not None]
CONDUCT = (
    *("withdraw", "pause", "resume", "freeze_learning", "resume_learning", "remove_from_learning"),
    *("activate_policy", "close_study", "approve_proposal", "reject_proposal"),
)
VALID: dict[str, dict[str, Any]] = {
    **{name: example.body for name, example in EXAMPLES.items() if example.body is not None},
    **{name: {"reason": "a test"} for name in CONDUCT},
    "change_protocol": {"document": {"protocol": "miwaves"}, "reason": "a test"},
}


def name_of(endpoint: Endpoint) -> str:
    return endpoint.view.__name__


def fields(endpoint: Endpoint) -> list[str]:
    return sorted(endpoint.body.model_fields) if endpoint.body is not None else []


@pytest.fixture(scope="module")
def study(embedded: Embedded, migrated: str) -> Iterator[Study]:
    """One study for all of these; logins are counted apart from other tests'."""
    with database(embedded, migrated) as url, configured(embedded, url) as service:
        yield begin(service)


@pytest.fixture
def send(study: Study) -> Callable[..., TestResponse]:
    """Sends bytes to an operation as an admin, each time from another address."""
    addresses = (f"10.{a}.{b}.{c}" for a in range(255) for b in range(255) for c in range(1, 255))

    def send(endpoint: Endpoint, raw: bytes, **headers: str) -> TestResponse:
        path = endpoint.path
        for variable in ("participant_id", "window_id", "job_id", "policy_id", "proposal_id", "incident_id"):
            path = path.replace(f"<int:{variable}>", "1")
        sent = {"Content-Type": "application/json", "Authorization": f"Bearer {study.tokens['admin']}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return study.service.app.test_client().open(
            path,
            method=endpoint.method,
            data=raw,
            headers={name: value for name, value in sent.items() if value},
            environ_base={"REMOTE_ADDR": next(addresses)},
        )

    return send


def is_refusal(answer: TestResponse) -> bool:
    """A 4xx with a JSON body of our shape, whose error_code has that status."""
    body = answer.get_json()
    return (
        400 <= answer.status_code < 500
        and answer.mimetype == "application/json"
        and set(body) <= {"status", "message", "error_code", "errors"}
        and body["status"] == "fail"
        and fault_of(body["error_code"]).status == answer.status_code
    )


def document(endpoint: Endpoint, **changes: Any) -> str:
    return json.dumps({**VALID[name_of(endpoint)], **changes})


HOSTILE: dict[str, Callable[[str], bytes]] = {
    "nothing": lambda text: b"",
    "blanks": lambda text: b" \n\t",
    "null": lambda text: b"null",
    "a number": lambda text: b"1",
    "a string": lambda text: b'"text"',
    "a list": lambda text: b"[]",
    "a list of the body": lambda text: f"[{text}]".encode(),
    "no object's end": lambda text: text[:-1].encode(),
    "two documents": lambda text: (text * 2).encode(),
    "something after it": lambda text: f"{text} x".encode(),
    "single quotes": lambda text: text.replace('"', "'").encode(),
    "a trailing comma": lambda text: f"{text[:-1]},}}".encode(),
    "a comment": lambda text: f"{text} // end".encode(),
    "UTF-8 with a mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "Latin-1": lambda text: f'{text[:-1]}, "note": "\xe9"}}'.encode("latin-1"),
    "half a character": lambda text: f'{text[:-1]}, "note": "'.encode() + b'\xc3"}',
    "an overlong character": lambda text: f'{text[:-1]}, "note": "'.encode() + b'\xc0\x80"}',
    "a lone surrogate": lambda text: f'{text[:-1]}, "note": "\\ud800"}}'.encode(),
    "a raw control character": lambda text: f'{text[:-1]}, "note": "\x01"}}'.encode(),
    "a raw NUL": lambda text: text.encode() + b"\0",
    "NaN": lambda text: f'{text[:-1]}, "note": NaN}}'.encode(),
    "infinity": lambda text: f'{text[:-1]}, "note": -Infinity}}'.encode(),
    "a number too long to read": lambda text: f'{text[:-1]}, "note": {"9" * 5000}}}'.encode(),
    "a name twice": lambda text: f'{text[:-1]}, "a": 1, "a": 1}}'.encode(),
    "a name twice inside": lambda text: f'{text[:-1]}, "note": [{{"a": 1, "a": 2}}]}}'.encode(),
    "deep lists": lambda text: f'{text[:-1]}, "note": {"[" * 20_000}{"]" * 20_000}}}'.encode(),
    "deep objects": lambda text: (f'{text[:-1]}, "note": ' + '{"a":' * 9_000 + "1" + "}" * 9_001).encode(),
    "unfinished deep lists": lambda text: b"[" * 60_000,
    "64 KB and more": lambda text: f'{text[:-1]}, "note": "{"x" * 65_536}"}}'.encode(),
    "10 MB": lambda text: f'{text[:-1]}, "note": "{"x" * 10_000_000}"}}'.encode(),
    "10 MB of blanks": lambda text: text.encode() + b" " * 10_000_000,
    "gzip": lambda text: gzip.compress(text.encode()),
    "random bytes": lambda text: bytes(range(256)),
}


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=name_of)
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_body_is_refused(
    send: Callable[..., TestResponse], endpoint: Endpoint, body: Callable[[str], bytes]
) -> None:
    answer = send(endpoint, body(document(endpoint)))
    assert is_refusal(answer)
    assert answer.status_code in {400, 413, 422}


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=name_of)
def test_a_compressed_body_is_refused(send: Callable[..., TestResponse], endpoint: Endpoint) -> None:
    raw = gzip.compress(document(endpoint).encode())
    for encoding in ("gzip", "deflate", "br"):
        answer = send(endpoint, raw, Content_Encoding=encoding)
        assert is_refusal(answer)
        assert answer.status_code == 400


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=name_of)
@pytest.mark.parametrize(
    "mimetype",
    ["", "text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"],
)
def test_another_media_type_is_refused(
    send: Callable[..., TestResponse], endpoint: Endpoint, mimetype: str
) -> None:
    answer = send(endpoint, document(endpoint).encode(), Content_Type=mimetype)
    assert is_refusal(answer)
    assert answer.status_code == 415


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=name_of)
def test_a_body_in_another_encoding_than_it_says_is_refused(
    send: Callable[..., TestResponse], endpoint: Endpoint
) -> None:
    raw = document(endpoint, reason="\xe9", user_id="\xe9", api_user="\xe9").replace("\\u00e9", "\xe9")
    answer = send(endpoint, raw.encode("latin-1"), Content_Type="application/json; charset=latin-1")
    assert (answer.status_code, answer.get_json()["error_code"]) == (400, 900)


WRONG = {
    "a huge number": 10**400,
    "a huge negative number": -(10**400),
    "a fraction": 0.5,
    "an object": {"a": {"b": []}},
    "lists": [[[]]],
    "NUL": "a\0b",
    "a control character": "a\x1bb",
    "a line end": "a\nb",
    "a text direction": "a\u202eb",
    "nothing": "",
    "too much": "x" * 2000,
}


@pytest.mark.parametrize(
    ("endpoint", "field"),
    [(endpoint, field) for endpoint in WITH_BODY for field in fields(endpoint)],
    ids=lambda value: value if isinstance(value, str) else name_of(value),
)
def test_no_field_takes_what_no_field_means(
    send: Callable[..., TestResponse], endpoint: Endpoint, field: str
) -> None:
    for kind, value in WRONG.items():
        answer = send(endpoint, document(endpoint, **{field: value}).encode())
        assert is_refusal(answer), kind
        faulty = {error["field"].partition(".")[0] for error in answer.get_json().get("errors", [])}
        assert faulty == {field}, kind


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"activity_question_response": 1}, ["activity_question_response"]),
        ({"cannabis_use": ["a"]}, ["cannabis_use.0", "cannabis_use"]),
        ({"cannabis_use": [1, 2, True]}, ["cannabis_use.2", "cannabis_use"]),
        ({"decision_index": "1"}, ["decision_index"]),
        ({"answers": {"mood": {"deep": 1}}}, ["answers.mood"]),
        ({"answers": {"mood": [1, "a"]}}, ["answers.mood", "answers.mood.1"]),
    ],
    ids=str,
)
def test_a_fault_is_named_as_the_body_names_it(
    study: Study, changes: dict[str, Any], fields: list[str]
) -> None:
    path, name = ("/decision_points", "decide_point") if "answers" in changes else ("/actions", "decide")
    told = study.call("POST", path, {**VALID[name], **changes}).get_json()
    assert [error["field"] for error in told["errors"]] == fields


def test_refusals_never_quote_the_value(send: Callable[..., TestResponse]) -> None:
    for endpoint in WITH_BODY:
        for field in fields(endpoint):
            answer = send(endpoint, document(endpoint, **{field: "a secret\nvalue"}).encode())
            assert "secret" not in answer.text


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**62, max_value=2**70)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=40)
    | st.dates().map(str)
    | st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=12,
)


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=name_of)
def test_anything_made_is_answered_in_our_shape(
    send: Callable[..., TestResponse], endpoint: Endpoint
) -> None:
    changes = st.dictionaries(st.sampled_from(fields(endpoint)), ANYTHING, min_size=1, max_size=3)

    @settings(
        max_examples=60,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(changes=changes)
    def check(changes: dict[str, Any]) -> None:
        answer = send(endpoint, document(endpoint, **changes).encode())
        assert answer.status_code == endpoint.status or is_refusal(answer), answer.text

    check()

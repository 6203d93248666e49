"""Who may do what: every route by every role, in the own study and on rows of another one.

A route that is not in the table fails; so does a row whose route is gone.
"""

import itertools
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from tests.support.service import Service
from tests.support.study import NOT_FINISHED, REGISTRATION, Study

# Statuses in the own study by nobody (no token), client, researcher, admin; then by the last three with ids
# and names of another study's rows, "-" where the route takes neither.
TABLE = """
                                               own study             another study's
GET  /running                                  200 200 200 200       -   -   -
GET  /version                                  200 200 200 200       -   -   -
GET  /healthcheck                              503 503 503 503       -   -   -
GET  /metrics                                  200 200 200 200       -   -   -
GET  /openapi.json                             200 200 200 200       -   -   -
GET  /docs                                     200 200 200 200       -   -   -
GET  /docs/start.js                            200 200 200 200       -   -   -
GET  /docs/<path:name>                         200 200 200 200       -   -   -
POST /auth/register                            422 422 422 422       -   -   -
POST /auth/login                               401 401 401 401       -   -   -
POST /auth/logout                              401 200 200 200       -   -   -
POST /register                                 401 201 403 201       201 403 201
POST /actions                                  401 200 403 200       404 403 404
POST /decision_points                          401 422 403 422       404 403 404
POST /end_decision_window                      401 202 403 202       404 403 404
POST /update_parameters                        401 202 403 202       -   -   -
POST /update_hyperparameters                   401 202 403 202       -   -   -
GET  /jobs/<int:job_id>                        401 200 200 200       404 404 404
GET  /study                                    401 200 200 200       -   -   -
GET  /study/protocol                           401 200 200 200       -   -   -
GET  /study/protocol/versions                  401 403 200 200       -   -   -
PUT  /study/protocol                           401 403 403 202       -   -   -
GET  /policies                                 401 200 200 200       -   -   -
GET  /policies/<int:policy_id>                 401 200 200 200       404 404 404
GET  /policies/<int:policy_id>/participants/<int:participant_id>  401 403 200 200  403 404 404
GET  /participants                             401 403 200 200       -   -   -
GET  /participants/<int:participant_id>        401 403 200 200       403 404 404
GET  /decisions                                401 403 200 200       403 200 200
GET  /windows                                  401 403 200 200       -   -   -
POST /windows/<int:window_id>/retry            401 403 403 202       403 403 404
POST /participants/<int:participant_id>/withdraw  401 403 403 200    403 403 404
POST /participants/<int:participant_id>/remove_from_learning  401 403 403 202  403 403 404
POST /policies/<int:policy_id>/activate        401 403 403 202       403 403 404
POST /study/freeze_learning                    401 403 403 200       -   -   -
POST /study/resume_learning                    401 403 403 200       -   -   -
POST /study/close                              401 403 403 202       -   -   -
GET  /proposals                                401 403 200 200       -   -   -
GET  /proposals/<int:proposal_id>              401 403 200 200       403 404 404
POST /proposals/<int:proposal_id>/approve      401 403 403 200       403 403 404
POST /proposals/<int:proposal_id>/reject       401 403 403 200       403 403 404
GET  /audit                                    401 403 200 200       -   -   -
GET  /incidents                                401 403 200 200       -   -   -
POST /incidents/<int:incident_id>/acknowledge  401 403 403 200       403 403 404
POST /study/pause                              401 403 403 200       -   -   -
POST /study/resume                             401 403 403 200       -   -   -
POST /exports                                  401 403 202 202       -   -   -
GET  /exports/<int:job_id>                     401 403 200 200       403 404 404
GET  /exports/<int:job_id>/file                401 403 409 409       403 404 404
GET  /storage/<path:object_key>                403 403 403 403       -   -   -
PUT  /storage/<path:object_key>                403 403 403 403       -   -   -
"""
CALLERS = (None, "client", "researcher", "admin")
numbers = itertools.count(1)
hours = itertools.cycle([3, 4])


class Rows(NamedTuple):
    """A participant with a window that is over, a policy that other studies have not, and an export."""

    user_id: str
    participant_id: int
    window_id: int
    job_id: int
    policy_id: int
    incident_id: int
    export_id: int
    proposal_id: int


NOBODY = Rows("nobody", 0, 0, 0, 0, 0, 0, 0)


def rows_of(study: Study) -> Rows:
    user_id = f"somebody {next(numbers)}"
    participant_id = study.enrol(user_id)
    study.live(user_id, 1)
    (window,) = study.rows("SELECT id FROM windows WHERE participant_id = %s", participant_id)
    (job,) = study.rows("SELECT id FROM jobs WHERE window_id = %s", window["id"])
    study.decide(user_id)
    export = study.call("POST", "/exports", role="admin").get_json()["job_id"]
    found, proposed = incident(study), proposal(study)
    policy = another_policy(study)
    return Rows(user_id, participant_id, window["id"], job["id"], policy, found, export, proposed)


def incident(study: Study) -> int:
    """An incident that is open in this study; its id."""
    found = study.rows(
        "INSERT INTO incidents (study_id, kind, level, detail, first_at, last_at) "
        "VALUES (%s, %s, 'red', '{}', now(), now()) RETURNING id",
        study.study_id,
        f"kind {next(numbers)}",
    )
    return int(found[0]["id"])


def proposal(study: Study) -> int:
    """A proposal to pause learning that is open in this study; its id."""
    found = study.rows(
        "INSERT INTO proposals (study_id, act, arguments, reason, proposed_by, expires_at) "
        "SELECT %s, 'rollback', '{\"policy_id\": 0}', 'a test', id, now() + interval '1 hour' FROM clients "
        "WHERE study_id = %s AND role = 'admin' RETURNING id",
        study.study_id,
        study.study_id,
    )
    return int(found[0]["id"])


def another_policy(study: Study) -> int:
    """A copy of the prior under a number that only this study has."""
    columns = ", ".join(
        row["column_name"]
        for row in study.rows(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_name = 'policies' AND column_name NOT IN ('id', 'policy_id')"
        )
    )
    number = 100 + next(numbers)
    copied = study.tamper(
        f"INSERT INTO policies (policy_id, {columns}) SELECT %s, {columns} FROM policies "
        "WHERE study_id = %s AND policy_id = 0",
        number,
        study.study_id,
    )
    assert copied == 1
    return number


class Request(NamedTuple):
    """What is sent to a route: its path's variables, its body and its query."""

    path: Mapping[str, int | str] = MappingProxyType({})
    body: dict[str, Any] | None = None
    query: dict[str, Any] | None = None


REQUESTS: dict[str, Callable[[Rows], Request]] = {
    "/docs/<path:name>": lambda rows: Request({"name": "css/swagger-ui.css"}),
    "/auth/register": lambda rows: Request(body={"api_user": "x", "api_pass": "a password", "study": "none"}),
    "/auth/login": lambda rows: Request(body={"api_user": f"x{next(numbers)}", "api_pass": "y"}),
    "/register": lambda rows: Request(body={"user_id": f"new {next(numbers)}", **REGISTRATION}),
    "/actions": lambda rows: Request(body={"user_id": rows.user_id, **NOT_FINISHED}),
    "/decision_points": lambda rows: Request(body={"user_id": rows.user_id}),
    "/end_decision_window": lambda rows: Request(body={"user_id": rows.user_id}),
    "/jobs/<int:job_id>": lambda rows: Request({"job_id": rows.job_id}),
    "/policies/<int:policy_id>": lambda rows: Request({"policy_id": rows.policy_id}),
    "/policies/<int:policy_id>/participants/<int:participant_id>": lambda rows: Request(
        {"policy_id": rows.policy_id, "participant_id": rows.participant_id}
    ),
    "/participants/<int:participant_id>": lambda rows: Request({"participant_id": rows.participant_id}),
    "/decisions": lambda rows: Request(query={"participant_id": rows.participant_id}),
    "/windows/<int:window_id>/retry": lambda rows: Request({"window_id": rows.window_id}),
    "/participants/<int:participant_id>/withdraw": lambda rows: Request(
        {"participant_id": rows.participant_id}, {"reason": "a test"}
    ),
    "/participants/<int:participant_id>/remove_from_learning": lambda rows: Request(
        {"participant_id": rows.participant_id}, {"reason": "a test"}
    ),
    "/policies/<int:policy_id>/activate": lambda rows: Request(
        {"policy_id": rows.policy_id}, {"reason": "a test"}
    ),
    "/study/freeze_learning": lambda rows: Request(body={"reason": "a test"}),
    "/study/resume_learning": lambda rows: Request(body={"reason": "a test"}),
    "/study/close": lambda rows: Request(body={"reason": "a test"}),
    "/proposals/<int:proposal_id>": lambda rows: Request({"proposal_id": rows.proposal_id}),
    "/proposals/<int:proposal_id>/approve": lambda rows: Request(
        {"proposal_id": rows.proposal_id}, {"reason": "a test"}
    ),
    "/proposals/<int:proposal_id>/reject": lambda rows: Request(
        {"proposal_id": rows.proposal_id}, {"reason": "a test"}
    ),
    "/incidents/<int:incident_id>/acknowledge": lambda rows: Request({"incident_id": rows.incident_id}),
    "/exports/<int:job_id>": lambda rows: Request({"job_id": rows.export_id}),
    "/exports/<int:job_id>/file": lambda rows: Request({"job_id": rows.export_id}),
    "/storage/<path:object_key>": lambda rows: Request(
        {"object_key": f"exports/1/{'0' * 32}"}, query={"expires": 2**33, "signature": "0" * 64}
    ),
    "/study/protocol": lambda rows: Request(
        body={"document": {"protocol": "miwaves", "refit": {"nightly_hour": next(hours)}}, "reason": "a test"}
    ),
    "/study/pause": lambda rows: Request(body={"reason": "a test"}),
    "/study/resume": lambda rows: Request(body={"reason": "a test"}),
}


def cells() -> list[tuple[str, str, list[str]]]:
    """(method, path, the seven statuses) of every row."""
    found = []
    for line in TABLE.strip().splitlines()[1:]:
        method, path, *statuses = line.split()
        found.append((method, path, statuses))
    return found


def send(study: Study, method: str, path: str, caller: str | None, asked: Request) -> tuple[int, str]:
    for name, value in asked.path.items():
        path = re.sub(f"<(int|path):{name}>", str(value), path)
    headers = {} if caller is None else {"Authorization": f"Bearer {study.tokens[caller]}"}
    answer = study.service.app.test_client().open(
        path, method=method, json=asked.body, query_string=asked.query, headers=headers
    )
    return answer.status_code, answer.text


def test_the_table_has_every_route_and_no_other(shared_service: Service) -> None:
    """Of the application, whoever added it; HEAD and OPTIONS go with GET and tell no more."""
    rules = shared_service.app.url_map.iter_rules()
    routes = {
        (method, rule.rule) for rule in rules for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert [(method, path) for method, path, _ in cells() if (method, path) not in routes] == []
    assert routes == {(method, path) for method, path, _ in cells()}


@pytest.mark.parametrize(("method", "path", "statuses"), cells(), ids=str)
def test_every_role_gets_what_the_table_says(
    new_study: Callable[..., Study], method: str, path: str, statuses: list[str]
) -> None:
    own = new_study()
    found = []
    for caller in CALLERS:
        rows = NOBODY if statuses[4] == "-" else rows_of(own)
        asked = REQUESTS[path](rows) if path in REQUESTS else Request()
        found.append(send(own, method, path, caller, asked)[0])
    assert found == [int(status) for status in statuses[:4]]


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [cell for cell in cells() if cell[2][4] != "-"],
    ids=str,
)
def test_no_token_reaches_another_studys_rows(
    new_study: Callable[..., Study], method: str, path: str, statuses: list[str]
) -> None:
    own, other = new_study(), new_study()
    theirs = rows_of(other)
    before = state_of(other)
    for caller, status in zip(CALLERS[1:], statuses[4:], strict=True):
        found, text = send(own, method, path, caller, REQUESTS[path](theirs))
        assert (caller, found) == (caller, int(status))
        assert theirs.user_id not in text
        if found == 200:
            assert f'"participant_id":{theirs.participant_id}' not in text
    assert state_of(other) == before


def state_of(study: Study) -> dict[str, list[dict[str, Any]]]:
    """Everything in a study that a stray call could have changed."""
    tables = (
        "participants",
        "decisions",
        "windows",
        "jobs",
        "answers",
        "audit",
        "idempotency_keys",
        "incidents",
        "proposals",
    )
    statement = "SELECT to_jsonb(t) AS row FROM {} t WHERE study_id = %s ORDER BY to_jsonb(t)::text"
    return {table: study.rows(statement.format(table), study.study_id) for table in tables}

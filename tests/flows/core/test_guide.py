"""The calls of docs/client-guide.md, sent as they stand there, one after the other."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from api.core import auth
from api.core.accounts import Newcomer
from models.core import accounts
from models.core.session import transact
from tests.support.study import Study

GUIDE = (Path(__file__).parents[3] / "docs" / "client-guide.md").read_text(encoding="utf-8")


class Shown(NamedTuple):
    """A call of the guide and, where it shows one, its answer."""

    path: str
    body: dict[str, Any]
    status: int | None
    answer: dict[str, Any]


def _after(heading: str, block: str) -> tuple[str, dict[str, Any]] | None:
    """The rest of the line that begins with `heading`, and the JSON object after it."""
    found = re.search(rf"^{heading}(\S*)\s*(?={{)", block, flags=re.MULTILINE)
    if found is None:
        return None
    return found[1], json.JSONDecoder().raw_decode(block, found.end())[0]


def calls() -> list[Shown]:
    """Those to the service, in the order of the page."""
    shown = []
    for block in re.findall(r"^```\n(.*?)^```$", GUIDE, flags=re.DOTALL | re.MULTILINE):
        asked, answered = _after("POST (?=/)", block), _after(r"(?=\d{3}\s)", block)
        if asked is not None:
            status, answer = answered or ("", {})
            shown.append(Shown(*asked, int(status) if status else None, answer))
    return shown


def _types(body: dict[str, Any]) -> dict[str, str]:
    """Names and types; numbers are of one type in JSON."""
    return {
        name: "number" if type(value) in {int, float} else str(type(value)) for name, value in body.items()
    }


def send(study: Study, call: Shown) -> None:
    """The call is answered as the guide shows."""
    answer = study.call("POST", call.path, call.body)
    assert answer.status_code == (call.status or 200), answer.text
    assert _types(answer.get_json()) == _types(call.answer or answer.get_json())


def test_the_calls_of_the_guide_go_as_it_shows(new_study: Callable[..., Study]) -> None:
    study, other = new_study(), new_study("protocol=oralytics")
    newcomer, login, register, *day, point = calls()
    assert set(newcomer.body) == set(Newcomer.model_fields)
    assert [call.path for call in day] == ["/actions", "/end_decision_window"]
    password_hash = auth.hashed(login.body["api_pass"])
    transact(
        lambda session: accounts.create(
            session, study.study_id, login.body["api_user"], password_hash, "client"
        )
    )
    for call in (login, register, *day):
        send(study, call)
    send(other, register)
    send(other, Shown("/decision_points", {**point.body, "decision_index": 1}, 200, day[0].answer))
    send(other, point)


@pytest.mark.parametrize("path", ["/auth/login", "/register", "/actions", "/end_decision_window"])
def test_the_guide_shows_the_answers_of_the_day(path: str) -> None:
    (shown,) = [call for call in calls() if call.path == path]
    assert shown.status is not None
    assert shown.answer["status"] == "success"

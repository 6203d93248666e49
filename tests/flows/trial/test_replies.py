"""Whole replies of a study's back end: many items, items of other windows, items that are none. Nothing is
dropped silently, and nothing takes longer than in proportion to what was sent."""

import cProfile
import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from models.core.session import transact
from tests.support.backend import BackEnd
from tests.support.study import Study
from tests.workers.trial.test_ingest import decide_and_end, item, outcome
from workers.trial import ema_client, ingest

WRONG = {"seed": "five"}


def told() -> list[tuple[Any, ...]]:
    """(rid, code, reported) of every discrepancy."""
    query = text("SELECT decision_id, code, reported FROM discrepancies ORDER BY id")
    return [tuple(row) for row in transact(lambda session: session.execute(query).all())]


def again(ema_study: Study, job_id: int) -> None:
    """Take a failed window up again."""
    window = ema_study.call("GET", "/windows?state=failed", role="researcher").get_json()["windows"][-1]
    assert ema_study.call("POST", f"/windows/{window['window_id']}/retry", role="admin").status_code == 202
    ingest.run(job_id)


def test_the_longest_number_of_an_item_fails_its_window_and_leaves_a_row(
    ema_study: Study, back_end: BackEnd
) -> None:
    ema_study.enrol("ann")
    decided, job_id = decide_and_end(ema_study)
    back_end.has(item(decided, policy_id=10**4200))
    ingest.run(job_id)
    assert outcome(ema_study, job_id) == ("failed", 307, "failed")
    assert told() == [(None, 307, "policy_id is missing or wrong (1 for point 1)")]


def test_every_window_that_fails_for_an_item_leaves_a_row_and_a_repeat_leaves_none(
    ema_study: Study, back_end: BackEnd
) -> None:
    ema_study.enrol("ann")
    for _ in range(2):
        decided, job_id = decide_and_end(ema_study)
        back_end.has(item(decided, **WRONG), item(decided, **WRONG), item(decided, rid=10**6))
        ingest.run(job_id)
        again(ema_study, job_id)
        assert outcome(ema_study, job_id) == ("failed", 305, "failed")
    assert told() == [
        row
        for point in (1, 2)
        for row in (
            (None, 319, f"1000000 (for point {point})"),
            (None, 305, f"seed is missing or wrong (2 for point {point})"),
        )
    ]


def labelled(*members: tuple[str, Any]) -> bytes:
    """A reply whose labels may stand more than once."""
    inner = ", ".join(f"{json.dumps(label)}: {json.dumps(one)}" for label, one in members)
    return f'{{"status": "success", "ema_data": {{{inner}}}}}'.encode()


def test_items_under_one_label_are_all_read(ema_study: Study, back_end: BackEnd) -> None:
    ema_study.enrol("ann")
    first, _ = decide_and_end(ema_study)
    second, job_id = decide_and_end(ema_study)
    back_end.body = labelled(("same", item(first)), ("same", item(second)), ("same", item(second)))
    ingest.run(job_id)
    assert outcome(ema_study, job_id)[0] == "done"
    stored = transact(lambda session: session.execute(text("SELECT decision_id FROM answers")).all())
    assert {row[0] for row in stored} == {first["rid"], second["rid"]}

    third, job_id = decide_and_end(ema_study)
    back_end.body = labelled(("same", item(third)), ("same", item(third, app_use_flag=True)))
    ingest.run(job_id)
    assert outcome(ema_study, job_id) == ("failed", 318, "failed")
    assert told() == [(third["rid"], 318, "2 items")]


@pytest.mark.parametrize("where", ["item", "answer"])
def test_any_other_name_that_stands_twice_is_not_understood(
    ema_study: Study, back_end: BackEnd, where: str
) -> None:
    ema_study.enrol("ann")
    decided, job_id = decide_and_end(ema_study)
    whole = labelled(("one", item(decided))).decode()
    name = '"user_id": ' if where == "item" else '"status": '
    back_end.body = whole.replace(name, f'{name}"ann", {name}', 1).encode()
    ingest.run(job_id)
    assert outcome(ema_study, job_id) == ("failed", 320, "failed")
    assert "stands twice" in ema_study.job(job_id)["reason"]


def test_more_items_than_anybody_has_points_fail_the_window(ema_study: Study, back_end: BackEnd) -> None:
    ema_study.enrol("ann")
    decided, job_id = decide_and_end(ema_study)
    back_end.has(*[item(decided)] * (ema_client.MOST_ITEMS + 1))
    ingest.run(job_id)
    assert outcome(ema_study, job_id) == ("failed", 320, "failed")
    back_end.has(*[item(decided)] * ema_client.MOST_ITEMS)
    again(ema_study, job_id)
    assert outcome(ema_study, job_id)[0] == "done"


Make = Callable[[dict[str, Any], int], dict[str, Any]]


@pytest.mark.parametrize(
    "make",
    [
        lambda decided, number: {},
        lambda decided, number: item(decided, rid=10**6 + number),
        lambda decided, number: item(decided, act_prob=number / 1000),
    ],
    ids=["no item", "rids of nobody", "one rid"],
)
def test_the_work_for_a_reply_grows_as_its_items_do(ema_study: Study, back_end: BackEnd, make: Make) -> None:
    ema_study.enrol("ann")

    def calls(count: int) -> int:
        decided, job_id = decide_and_end(ema_study)
        back_end.has(*(make(decided, number) for number in range(count)))
        profile = cProfile.Profile()
        profile.runcall(ingest.run, job_id)
        return sum(entry.callcount for entry in profile.getstats())

    calls(1)  # what is prepared once
    nothing, few, many = calls(0), calls(200), calls(800)
    assert many - nothing < 6 * (few - nothing)
    assert many - nothing < 800 * 100


def test_a_place_before_the_back_end_answers_for_its_own_windows_alone(
    ema_study: Study, back_end: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies: dict[str, list[dict[str, Any]]] = {}
    monkeypatch.setattr(ingest, "SOURCES", [lambda source: replies.get(source.user_id), *ingest.SOURCES])
    for name in ("ann", "bob"):
        ema_study.enrol(name)
    decided, inside = decide_and_end(ema_study, "ann")
    replies["ann"] = [item(decided)]
    ingest.run(inside)
    assert outcome(ema_study, inside) == ("done", None, "ingested")
    assert back_end.asked == []
    decided, outside = decide_and_end(ema_study, "bob")
    back_end.has({**item(decided), "user_id": "bob"})
    ingest.run(outside)
    assert outcome(ema_study, outside) == ("done", None, "ingested")
    assert len(back_end.asked) == 1

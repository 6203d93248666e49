"""The running test of the draws, against a real database: what it finds, and that it reads each draw once."""

import math
import threading
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from models.core.session import transact, transact_at
from models.oversight import fidelity
from models.oversight.incidents import CALM, Kind
from tests.support.watched import Place
from tests.workers.trial.test_refit import play

MINUTE = timedelta(minutes=1)
SOON = 2 * MINUTE


COPIED = (
    *("study_id", "participant_id", "protocol_id", "protocol_hash", "code_version", "feature_version"),
    *("state", "fallback_level", "answers", "decision_time", "utc_offset_minutes", "act_gen_timestamp"),
)


def draw(place: Place, number: int, action: str, policy: str = "0", evening: str = "false") -> None:
    """Add decisions of probability 0.3, each with a seed that its action follows from.

    action, policy, evening: SQL of the draw's number n.
    """
    columns = ", ".join(COPIED)
    (first,) = place.study.rows("SELECT coalesce(max(decision_index), 0) AS top FROM decisions")
    place.study.tamper(
        f"""INSERT INTO decisions ({columns}, decision_index, policy_id, evening, act_prob, action, seed)
        SELECT {columns}, {first["top"]} + n, {policy}, {evening}, 0.3, {action},
               CASE WHEN ({action}) = 1 THEN 0 ELSE 9007199254740991 END
        FROM (SELECT * FROM decisions ORDER BY id LIMIT 1) one, generate_series(1, {number}) n"""
    )


FAIR = "(mod(n * 7, 10) < 3)::int"  # three of ten


@pytest.mark.provokes(Kind.RANDOMISATION)
@pytest.mark.parametrize(
    ("streams", "number", "wrong"),
    [
        # many policies, and each half of the day for itself says too little
        (
            "all",
            2400,
            {"action": "(mod(n * 7, 25) < 9)::int", "policy": "n / 8", "evening": "mod(n / 25, 2) = 1"},
        ),
        (
            "policy%",
            800,
            {"action": "(mod(n, 10) < CASE WHEN n <= 400 THEN 0 ELSE 6 END)::int", "policy": "n / 401"},
        ),
        (
            "%ning",
            800,
            {
                "action": "(mod(n / 2, 10) < CASE WHEN mod(n, 2) = 1 THEN 0 ELSE 6 END)::int",
                "evening": "mod(n, 2) = 1",
            },
        ),
    ],
    ids=["overall", "by policy", "by time of day"],
)
def test_draws_that_do_not_fit_their_probabilities(
    place: Place, streams: str, number: int, wrong: dict[str, str]
) -> None:
    place.point(ended=False)
    draw(place, 800, FAIR)
    assert "randomisation" not in place.look(SOON)
    draw(place, number, **wrong)
    seen = place.look(SOON)["randomisation"]
    assert (seen["level"], seen["detail"]["mismatched"]) == ("red", 0)
    assert seen["detail"]["decisions"] == 801 + number
    assert evidence(place, "true") == pytest.approx(seen["detail"]["log_evidence"], abs=0.001)
    assert evidence(place, f"stream NOT LIKE '{streams}'") < math.log(1000)  # no other stream tells it
    draw(place, 200, FAIR)
    assert "randomisation" in place.look(3 * MINUTE)  # what was found stays found
    place.acknowledge(seen["incident_id"])
    assert place.is_over("randomisation", 3 * MINUTE + CALM)
    draw(place, number, **wrong)
    assert place.look(10 * MINUTE)["randomisation"]["incident_id"] > seen["incident_id"]


def evidence(place: Place, condition: str) -> float:
    """The log evidence of the streams for which an SQL condition holds."""
    found = place.study.rows(f"SELECT share, log_evidence FROM randomisation_tests WHERE {condition}")
    return math.log(
        1
        - sum(one["share"] for one in found)
        + sum(one["share"] * math.exp(one["log_evidence"]) for one in found)
    )


@pytest.mark.provokes(Kind.RANDOMISATION)
def test_a_draw_that_is_not_what_its_seed_says(place: Place) -> None:
    play(place.study, people=2, points=2)
    assert "randomisation" not in place.look(timedelta())  # too young to be read
    place.study.tamper("UPDATE decisions SET action = 1 - action WHERE id = (SELECT min(id) FROM decisions)")
    seen = place.look(SOON)["randomisation"]
    assert (seen["level"], seen["detail"]["mismatched"]) == ("red", 1)


def test_each_draw_is_read_once(place: Place) -> None:
    play(place.study, people=2, points=2)
    for _ in range(3):
        place.look(SOON)
    (found,) = place.study.rows("SELECT decisions FROM randomisation_tests WHERE stream = 'all'")
    assert found["decisions"] == 4


NO_PROBABILITY = ("'NaN'", "1.5", "-0.1", "'Infinity'")


@pytest.mark.provokes(Kind.RANDOMISATION)
@pytest.mark.parametrize("wrong", [*(f"act_prob = {one}" for one in NO_PROBABILITY), "action = 2"])
def test_what_can_be_no_draw_is_an_incident_and_the_others_are_read_all_the_same(
    place: Place, wrong: str
) -> None:
    play(place.study, people=2, points=2)
    place.study.tamper(f"UPDATE decisions SET {wrong} WHERE id = (SELECT min(id) FROM decisions)")
    seen = place.look(SOON)["randomisation"]
    assert (seen["level"], seen["detail"]["mismatched"], seen["detail"]["decisions"]) == ("red", 1, 4)
    place.acknowledge(seen["incident_id"])
    draw(place, 10, FAIR)
    assert place.is_over("randomisation", SOON + CALM)
    assert read(place) == 10


def read(place: Place) -> int:
    """How many draws the test has read since it began."""
    (found,) = place.study.rows("SELECT decisions FROM randomisation_tests WHERE stream = 'all'")
    return int(found["decisions"])


def test_of_two_calls_at_once_both_are_read_whichever_has_the_lower_rid(place: Place) -> None:
    for user_id in ("bob", "cid"):
        place.study.enrol(user_id)
    for user_id in ("ann", "bob", "cid"):
        place.point(user_id)
    dated = "UPDATE decisions SET act_gen_timestamp = %s WHERE id = (SELECT id FROM decisions ORDER BY id {})"
    for place_of_rid, seconds in (("LIMIT 1", 0.3), ("OFFSET 1 LIMIT 1", 0.1), ("OFFSET 2 LIMIT 1", 0.4)):
        place.study.tamper(dated.format(place_of_rid), place.start + timedelta(seconds=seconds))
    place.look(MINUTE + timedelta(seconds=0.2))  # between the two: the lower rid is the younger one
    assert read(place) == 2
    place.look(SOON)
    assert read(place) == 3


COPY = f"""
INSERT INTO decisions (id, {", ".join(COPIED)}, decision_index, policy_id, evening, act_prob, action, seed)
OVERRIDING SYSTEM VALUE
SELECT :rid, {", ".join(COPIED)}, 2, policy_id, evening, act_prob, action, seed FROM decisions LIMIT 1
"""


def test_a_decision_whose_transaction_ends_late_is_read(place: Place) -> None:
    has_its_rid, may_end = threading.Event(), threading.Event()

    def decide(session: Session) -> None:
        rid = session.scalar(text("SELECT nextval('decisions_id_seq')"))
        has_its_rid.set()
        may_end.wait(60)
        session.execute(text(COPY), {"rid": rid})

    late = threading.Thread(target=partial(transact_at, "READ COMMITTED", decide))
    late.start()
    assert has_its_rid.wait(60)
    place.point()
    place.look(SOON)
    assert place.study.rows("SELECT FROM randomisation_tests") == []  # nor is the later one read
    may_end.set()
    late.join()
    place.look(SOON)
    assert read(place) == 2
    first, second = place.study.rows("SELECT decision_index FROM decisions ORDER BY id")
    assert (first["decision_index"], second["decision_index"]) == (2, 1)


def test_other_transactions_of_the_service_are_waited_for(place: Place) -> None:
    assert transact(fidelity.oldest_transaction) is None
    before = datetime.now(UTC)

    def seen_by_another(session: Session) -> datetime | None:
        session.execute(text("SELECT"))
        return transact(fidelity.oldest_transaction)

    began = transact(seen_by_another)
    assert began is not None
    assert before <= began <= datetime.now(UTC)

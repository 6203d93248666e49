"""The course of the rehearsed trial: everything that a replay must get right. Refits with and without
hyper-parameters, corrections, gaps, every rung of the ladder, and every act that changes what decides."""

import random
from datetime import UTC, datetime

from tests.replay.rehearsed import LENGTH, Rehearsal
from tests.support.backend import BackEnd
from tests.support.study import Study
from workers.oversight import watchdog

AHEAD = 6  # hours from now that no wall clock of the trial's zones shows


def play(study: Study, back_end: BackEnd) -> None:
    """The whole trial: the last participant comes late, the first leaves, one reaches the end."""
    rehearsal = Rehearsal(study, back_end, random.Random(7))
    ids = rehearsal.enrol()
    leaver, *rest, late = ids
    rehearsal.missed = {(rest[3], 11)}
    rehearsal.play([leaver, *rest], 1, 3)
    assert rehearsal.fit() == 1
    rehearsal.play([leaver, *rest], 4, 6)
    rehearsal.catch_up()
    assert rehearsal.fit("/update_hyperparameters") == 2  # too few rows
    rehearsal.ask(f"/participants/{ids[leaver]}/withdraw")
    rehearsal.play(rest, 7, 11)
    assert rehearsal.fit("/update_hyperparameters") == 3
    study.decide(late, **{"timezone": "Asia/Tokyo"})
    rehearsal.play(rest, 12, 12)
    assert rehearsal.fit() == 4
    _fall_back(rehearsal, ids, rest)
    _conduct(rehearsal, ids, [*rest[4:], late])
    rehearsal.play(rest[:1], 14, LENGTH)
    _watch(study)


def _watch(study: Study) -> None:
    """The watchdog records that decisions fell back; an admin has seen it."""
    watchdog.run()
    (fallen,) = study.rows("SELECT id FROM incidents WHERE kind = 'fallbacks'")
    assert study.call("POST", f"/incidents/{fallen['id']}/acknowledge", role="admin").status_code == 200


def _fall_back(rehearsal: Rehearsal, ids: dict[str, int], people: list[str]) -> None:
    """Decisions at point 13 on every rung of the ladder."""
    study, (one, two, three, blind, *others) = rehearsal.study, people
    rehearsal.play(others, 13, 13)
    (before,) = study.rows(
        "SELECT id FROM decisions WHERE (participant_id, decision_index) = (%s, 12)", ids[blind]
    )  # its point 11 was missed, so that no fit learns from this reward
    study.tamper("UPDATE decisions SET reward = 'NaN' WHERE id = %s", before["id"])
    study.tamper("DELETE FROM answers WHERE decision_id = %s", before["id"])
    assert study.decide(blind, decision_index=13)["fallback_level"] == "F4"
    rehearsal.spoil("policy_blocks", "mean", 4, ids[one])
    assert study.decide(one, decision_index=13)["fallback_level"] == "F2"
    study.tamper(f"DELETE FROM policy_blocks WHERE policy_id = 4 AND participant_id = {ids[two]}")
    rehearsal.spoil("policies", "advantage_mean", 4)
    assert study.decide(two, decision_index=13)["fallback_level"] == "F1"
    rehearsal.spoil("policies", "advantage_mean", 3)
    for policy_id in (3, 4):
        rehearsal.spoil("policy_blocks", "mean", policy_id, ids[three])
    assert study.decide(three, decision_index=13)["fallback_level"] == "F3"


def _conduct(rehearsal: Rehearsal, ids: dict[str, int], people: list[str]) -> None:
    """Points 14 to 18, while policies 4 to 7 serve; who got the fewest messages is removed."""
    query = "SELECT participant_id, sum(action) AS n FROM decisions GROUP BY participant_id"
    sent = {row["participant_id"]: int(row["n"]) for row in rehearsal.study.rows(query)}
    theirs = sorted((sent[ids[one]], ids[one]) for one in people[:-1])
    spare = 2  # or who is removed could be forbidden every message from the removal on
    _amend(rehearsal, people[1], cap=max(theirs[-2][0], theirs[0][0] + spare))
    rehearsal.play(people, 14, 14)
    rehearsal.ask(f"/participants/{theirs[0][1]}/remove_from_learning")
    assert rehearsal.fit_queued() == 5
    rehearsal.play(people, 15, 15)
    assert rehearsal.fit() == 6
    rehearsal.play(people, 16, 16)
    rehearsal.ask("/policies/5/activate")
    rehearsal.play(people, 17, 17)
    assert rehearsal.fit() == 5  # learning is frozen
    rehearsal.ask("/study/resume_learning")
    assert rehearsal.fit_queued() == 7
    rehearsal.ask("/study/freeze_learning")
    rehearsal.play(people, 18, 18)
    assert rehearsal.fit() == 7


def _amend(rehearsal: Rehearsal, somebody: str, cap: int) -> None:
    """Other bounds of the probabilities; no message to who had `cap` of them already, nor in an hour in which
    `somebody` decides next."""
    study = rehearsal.study
    hour = (datetime.now(UTC).hour + AHEAD) % 24
    limits = {"weekly_cap": cap, "quiet_hours": {"from": 100 * hour, "to": 100 * hour + 59}}
    document = study.call("GET", "/study/protocol", role="admin").get_json()["protocol"]["document"]
    changed = document | {
        "allocation": document["allocation"] | {"lower": 0.25, "upper": 0.75},
        "envelope": document["envelope"] | limits,
    }
    body = {"document": changed, "reason": "fewer messages", "amendment": True}
    answer = study.call("PUT", "/study/protocol", body, role="admin")
    assert answer.status_code in {200, 202}, answer.text
    at = f"{datetime.now(UTC).date().isoformat()}T{hour:02d}:30:00+00:00"
    assert study.decide(somebody, decision_index=14, decision_time=at)["available"] is False

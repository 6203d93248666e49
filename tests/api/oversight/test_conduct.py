"""What admins do to a running trial: withdrawal, pause and resumption, each with its reason."""

from typing import Any

import pytest

from tests.support.service import NOT_FINISHED
from tests.support.study import Trial

WHY = {"reason": "asked by telephone"}


def withdraw(trial: Trial, participant_id: int, body: Any = WHY, role: str = "admin") -> tuple[int, Any]:
    answer = trial.call("POST", f"/participants/{participant_id}/withdraw", body, role=role)
    return answer.status_code, answer.json


def code(trial: Trial, path: str, user_id: str, **more: Any) -> tuple[int, int]:
    """Status and error_code of a core call."""
    answer = trial.call("POST", path, {"user_id": user_id, **NOT_FINISHED, **more})
    assert answer.json is not None
    return answer.status_code, answer.json.get("error_code", 0)


def acts(trial: Trial) -> list[tuple[str, str, int | None]]:
    """(act, reason, participant) as they were written down, with who did it being the study's admin."""
    found = trial.rows(
        "SELECT a.act, a.reason, a.participant_id FROM audit a JOIN clients c ON c.id = a.client_id"
        " AND c.role = 'admin' WHERE a.study_id = %s ORDER BY a.id",
        trial.study_id,
    )
    return [(row["act"], row["reason"], row["participant_id"]) for row in found]


def test_a_withdrawal_closes_and_ingests_the_open_window_and_keeps_the_reason(trial: Trial) -> None:
    ann = trial.enrol("ann")
    trial.live("ann", 1)
    trial.decide("ann")
    assert withdraw(trial, ann) == (200, {"status": "success", "participant_id": ann, "phase": "WITHDRAWN"})
    assert trial.windows(ann) == [(1, "ended"), (2, "end_missing")]
    jobs = trial.rows("SELECT kind FROM jobs WHERE study_id = %s", trial.study_id)
    assert [job["kind"] for job in jobs] == ["ingest", "ingest"]
    assert acts(trial) == [("withdraw", "asked by telephone", ann)]


def test_after_a_withdrawal_repeats_are_answered_and_nothing_new_is(trial: Trial) -> None:
    ann = trial.enrol("ann")
    first = trial.decide("ann", key="k")
    withdraw(trial, ann)
    assert trial.decide("ann", decision_index=1) == first
    assert trial.decide("ann", key="k") == first
    assert code(trial, "/actions", "ann") == (409, 211)
    assert code(trial, "/actions", "ann", decision_index=2) == (409, 211)
    late = trial.end("ann")
    assert late == trial.end("ann", decision_index=1)
    assert code(trial, "/end_decision_window", "ann", decision_index=2) == (409, 302)


def test_withdrawing_twice_changes_nothing(trial: Trial) -> None:
    ann = trial.enrol("ann")
    trial.decide("ann")
    assert withdraw(trial, ann) == withdraw(trial, ann)
    assert trial.windows(ann) == [(1, "end_missing")]


def test_somebody_without_a_decision_may_withdraw(trial: Trial) -> None:
    ann = trial.enrol("ann")
    assert withdraw(trial, ann)[0] == 200
    assert code(trial, "/actions", "ann") == (409, 211)
    assert code(trial, "/end_decision_window", "ann") == (409, 301)


def test_somebody_whose_last_window_is_open_may_withdraw(trial: Trial) -> None:
    ann = trial.enrol("ann")
    trial.decide("ann", decision_index=60)
    assert withdraw(trial, ann)[0] == 200
    assert trial.show(ann)["phase"] == "WITHDRAWN"
    assert trial.windows(ann)[-1] == (60, "end_missing")


def test_who_has_ended_cannot_withdraw(trial: Trial) -> None:
    ann = trial.enrol("ann")
    trial.decide("ann", decision_index=60)
    trial.end("ann")
    status, answer = withdraw(trial, ann)
    assert (status, answer["error_code"]) == (409, 111)
    assert acts(trial) == []


def test_a_participant_of_another_study_is_unknown(trial: Trial, new_trial: Any) -> None:
    stranger = new_trial().enrol("ann")
    status, answer = withdraw(trial, stranger)
    assert (status, answer["error_code"]) == (404, 910)


@pytest.mark.parametrize(
    "body", [{}, {"reason": ""}, {"reason": "x" * 1001}, {"reason": "x", "user_id": "ann"}]
)
def test_a_reason_is_needed_and_nothing_else(trial: Trial, body: dict[str, str]) -> None:
    ann = trial.enrol("ann")
    assert withdraw(trial, ann, body)[0] == 422
    assert trial.call("POST", "/study/pause", body, role="admin").status_code == 422
    assert trial.show(ann)["phase"] == "REGISTERED"


@pytest.mark.parametrize("role", ["client", "researcher"])
def test_conduct_is_the_admins(trial: Trial, role: str) -> None:
    ann = trial.enrol("ann")
    assert withdraw(trial, ann, role=role)[0] == 403
    for path in ("/study/pause", "/study/resume"):
        assert trial.call("POST", path, WHY, role=role).status_code == 403
    assert acts(trial) == []


def test_a_paused_study_decides_nothing_new_but_goes_on(trial: Trial) -> None:
    trial.enrol("ann")
    trial.enrol("ben")
    first = trial.decide("ann")
    paused = trial.call("POST", "/study/pause", {"reason": "a fault in the app"}, role="admin")
    assert paused.json == {"status": "success", "paused": True}
    assert trial.decide("ann") == first
    assert code(trial, "/actions", "ben") == (409, 211)
    assert code(trial, "/actions", "ann", decision_index=2) == (409, 211)
    trial.age(first["rid"], 9)
    assert code(trial, "/actions", "ann") == (409, 211)
    assert trial.end("ann")["decision_index"] == 1
    assert trial.enrol("cem")
    trial.call("POST", "/study/resume", {"reason": "mended"}, role="admin")
    assert trial.decide("ann")["decision_index"] == 2
    assert acts(trial) == [("pause", "a fault in the app", None), ("resume", "mended", None)]


def test_a_pause_is_one_studys(trial: Trial, new_trial: Any) -> None:
    other = new_trial()
    other.enrol("ann")
    trial.call("POST", "/study/pause", WHY, role="admin")
    assert other.decide("ann")["decision_index"] == 1

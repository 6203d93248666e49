"""What admins do to a running trial: withdrawal, pause and resumption, each with its reason."""

from typing import Any

import pytest

from tests.support.study import NOT_FINISHED, Study

WHY = {"reason": "asked by telephone"}


def withdraw(study: Study, participant_id: int, body: Any = WHY, role: str = "admin") -> tuple[int, Any]:
    answer = study.call("POST", f"/participants/{participant_id}/withdraw", body, role=role)
    return answer.status_code, answer.json


def code(study: Study, path: str, user_id: str, **more: Any) -> tuple[int, int]:
    """Status and error_code of a core call."""
    answer = study.call("POST", path, {"user_id": user_id, **NOT_FINISHED, **more})
    assert answer.json is not None
    return answer.status_code, answer.json.get("error_code", 0)


def acts(study: Study) -> list[tuple[str, str, int | None]]:
    """(act, reason, participant) as they were written down, with who did it being the study's admin."""
    found = study.rows(
        "SELECT a.act, a.reason, a.participant_id FROM audit a JOIN clients c ON c.id = a.client_id"
        " AND c.role = 'admin' WHERE a.study_id = %s ORDER BY a.id",
        study.study_id,
    )
    return [(row["act"], row["reason"], row["participant_id"]) for row in found]


def test_a_withdrawal_closes_and_ingests_the_open_window_and_keeps_the_reason(study: Study) -> None:
    ann = study.enrol("ann")
    study.live("ann", 1)
    study.decide("ann")
    assert withdraw(study, ann) == (200, {"status": "success", "participant_id": ann, "phase": "WITHDRAWN"})
    assert study.windows(ann) == [(1, "ended"), (2, "end_missing")]
    jobs = study.rows("SELECT kind FROM jobs WHERE study_id = %s", study.study_id)
    assert [job["kind"] for job in jobs] == ["ingest", "ingest"]
    assert acts(study) == [("withdraw", "asked by telephone", ann)]


def test_after_a_withdrawal_repeats_are_answered_and_nothing_new_is(study: Study) -> None:
    ann = study.enrol("ann")
    first = study.decide("ann", key="k")
    withdraw(study, ann)
    assert study.decide("ann", decision_index=1) == first
    assert study.decide("ann", key="k") == first
    assert code(study, "/actions", "ann") == (409, 211)
    assert code(study, "/actions", "ann", decision_index=2) == (409, 211)
    late = study.end("ann")
    assert late == study.end("ann", decision_index=1)
    assert code(study, "/end_decision_window", "ann", decision_index=2) == (409, 302)


def test_withdrawing_twice_changes_nothing(study: Study) -> None:
    ann = study.enrol("ann")
    study.decide("ann")
    assert withdraw(study, ann) == withdraw(study, ann)
    assert study.windows(ann) == [(1, "end_missing")]


def test_somebody_without_a_decision_may_withdraw(study: Study) -> None:
    ann = study.enrol("ann")
    assert withdraw(study, ann)[0] == 200
    assert code(study, "/actions", "ann") == (409, 211)
    assert code(study, "/end_decision_window", "ann") == (409, 301)


def test_somebody_whose_last_window_is_open_may_withdraw(study: Study) -> None:
    ann = study.enrol("ann")
    study.decide("ann", decision_index=60)
    assert withdraw(study, ann)[0] == 200
    assert study.show(ann)["phase"] == "WITHDRAWN"
    assert study.windows(ann)[-1] == (60, "end_missing")


def test_who_has_ended_cannot_withdraw(study: Study) -> None:
    ann = study.enrol("ann")
    study.decide("ann", decision_index=60)
    study.end("ann")
    status, answer = withdraw(study, ann)
    assert (status, answer["error_code"]) == (409, 111)
    assert acts(study) == []


def test_a_participant_of_another_study_is_unknown(study: Study, new_study: Any) -> None:
    stranger = new_study().enrol("ann")
    status, answer = withdraw(study, stranger)
    assert (status, answer["error_code"]) == (404, 910)


@pytest.mark.parametrize(
    "body", [{}, {"reason": ""}, {"reason": "x" * 1001}, {"reason": "x", "user_id": "ann"}]
)
def test_a_reason_is_needed_and_nothing_else(study: Study, body: dict[str, str]) -> None:
    ann = study.enrol("ann")
    assert withdraw(study, ann, body)[0] == 422
    assert study.call("POST", "/study/pause", body, role="admin").status_code == 422
    assert study.show(ann)["phase"] == "REGISTERED"


@pytest.mark.parametrize("role", ["client", "researcher"])
def test_conduct_is_the_admins(study: Study, role: str) -> None:
    ann = study.enrol("ann")
    assert withdraw(study, ann, role=role)[0] == 403
    for path in ("/study/pause", "/study/resume"):
        assert study.call("POST", path, WHY, role=role).status_code == 403
    assert acts(study) == []


def test_a_paused_study_decides_nothing_new_but_goes_on(study: Study) -> None:
    study.enrol("ann")
    study.enrol("ben")
    first = study.decide("ann")
    paused = study.call("POST", "/study/pause", {"reason": "a fault in the app"}, role="admin")
    assert paused.json == {"status": "success", "paused": True}
    assert study.decide("ann") == first
    assert code(study, "/actions", "ben") == (409, 211)
    assert code(study, "/actions", "ann", decision_index=2) == (409, 211)
    study.age(first["rid"], 9)
    assert code(study, "/actions", "ann") == (409, 211)
    assert study.end("ann")["decision_index"] == 1
    assert study.enrol("cem")
    study.call("POST", "/study/resume", {"reason": "mended"}, role="admin")
    assert study.decide("ann")["decision_index"] == 2
    assert acts(study) == [("pause", "a fault in the app", None), ("resume", "mended", None)]


def test_a_pause_is_one_studys(study: Study, new_study: Any) -> None:
    other = new_study()
    other.enrol("ann")
    study.call("POST", "/study/pause", WHY, role="admin")
    assert other.decide("ann")["decision_index"] == 1

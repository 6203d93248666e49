"""Two studies in one deployment: lists, counts and names are each study's own."""

from collections.abc import Callable

from tests.flows.core.test_authorisation import rows_of
from tests.support.study import Study


def test_lists_and_counts_hold_the_own_study_alone(new_study: Callable[..., Study]) -> None:
    own, other = new_study(), new_study()
    mine, theirs = rows_of(own), rows_of(other)
    lists = {path: own.call("GET", path, role="admin").get_json() for path in ("/participants", "/windows")}
    assert [one["participant_id"] for one in lists["/participants"]["participants"]] == [mine.participant_id]
    assert [one["window_id"] for one in lists["/windows"]["windows"]] == [mine.window_id]
    decisions = own.call("GET", "/decisions", role="admin").get_json()["decisions"]
    assert {one["participant_id"] for one in decisions} == {mine.participant_id}
    policies = own.call("GET", "/policies", role="admin").get_json()["policies"]
    assert [one["policy_id"] for one in policies] == [0, mine.policy_id]
    named = own.call("GET", f"/participants?user_id={theirs.user_id}", role="admin").get_json()
    assert named["participants"] == []
    counts = own.call("GET", "/study", role="admin").get_json()
    assert (counts["study"], counts["participants"], counts["decisions"]) == (own.name, 1, 2)


def test_the_same_user_id_is_somebody_else_in_another_study(new_study: Callable[..., Study]) -> None:
    own, other = new_study(), new_study()
    assert own.enrol("ann") != other.enrol("ann")
    own.decide("ann")
    other.call("POST", "/study/pause", {"reason": "a test"}, role="admin")
    assert own.end("ann")["decision_index"] == 1
    assert other.post_end("ann").status_code == 409

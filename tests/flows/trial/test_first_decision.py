"""The first decision of a participant, from enrolment to the policy that learns from it."""

from tests.support.study import Study

FINISHED = {
    "finished_ema": True,
    "app_use_flag": False,
    "activity_question_response": True,
    "cannabis_use": [],
}


def test_a_new_participant_gets_the_prior_policys_probability(only_study: Study) -> None:
    only_study.enrol("ann")
    decided = only_study.decide("ann", **FINISHED)
    assert decided["state"] == [1, 0, 1]
    assert abs(decided["act_prob"] - 0.4399196909) < 1e-10
    assert decided["policy_id"] == 0
    assert decided["decision_index"] == 1
    assert decided["action"] == (1 if decided["seed"] / 2**53 < decided["act_prob"] else 0)


def test_a_repeat_gives_the_stored_decision_and_keeps_other_answers(only_study: Study) -> None:
    only_study.enrol("ann")
    first = only_study.decide("ann", **FINISHED)
    again = only_study.decide("ann")
    assert again == {**first, "correction_stored": True}


def test_ending_a_window_moves_on_and_repeats_give_the_same_job(only_study: Study) -> None:
    only_study.enrol("ann")
    only_study.decide("ann")
    ended = only_study.end("ann")
    assert only_study.end("ann") == ended
    assert only_study.decide("ann")["decision_index"] == 2

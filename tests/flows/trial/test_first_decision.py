"""The first decision of a participant, from enrolment to the policy that learns from it."""

from tests.support.service import Service

FINISHED = {
    "finished_ema": True,
    "app_use_flag": False,
    "activity_question_response": True,
    "cannabis_use": [],
}


def test_a_new_participant_gets_the_prior_policys_probability(service: Service) -> None:
    assert service.enrol("ann").status_code == 201
    decided = service.decide("ann", FINISHED).get_json()
    assert decided["state"] == [1, 0, 1]
    assert abs(decided["act_prob"] - 0.4399196909) < 1e-10
    assert decided["policy_id"] == 0
    assert decided["decision_index"] == 1
    assert decided["action"] == (1 if decided["seed"] / 2**53 < decided["act_prob"] else 0)


def test_a_repeat_gives_the_stored_decision_and_keeps_other_answers(service: Service) -> None:
    service.enrol("ann")
    first = service.decide("ann", FINISHED).get_json()
    again = service.decide("ann").get_json()
    assert again == {**first, "correction_stored": True}


def test_ending_a_window_moves_on_and_repeats_give_the_same_job(service: Service) -> None:
    service.enrol("ann")
    service.decide("ann")
    ended = service.end("ann")
    assert ended.status_code == 202
    assert service.end("ann").get_json() == ended.get_json()
    assert service.decide("ann").get_json()["decision_index"] == 2

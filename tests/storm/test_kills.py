"""A storm of kills in a reduced form; `make storm` plays the long one."""

from collections import Counter

import pytest

from local.embedded import Embedded
from tests.storm import kills, poison, premise
from tests.storm.kills import Plan, Storm

REDUCED = Plan(participants=8, points=5, kills=1, pauses=(1.5, 0.8), seed=20261121)


@pytest.fixture(scope="module")
def played(embedded: Embedded, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Storm:
    """The storm, played once for all tests of this file."""
    folder = tmp_path_factory.mktemp("faults")
    seed = kills.make_seed(embedded, migrated, REDUCED)
    return kills.play_all(embedded, seed, folder, REDUCED, lambda _: None)


def test_in_lockstep_a_killed_service_stores_and_learns_what_an_undisturbed_one_does(played: Storm) -> None:
    lockstep = played.outcomes[0]
    assert lockstep.wrong == []
    assert lockstep.decisions == REDUCED.participants * REDUCED.points
    assert lockstep.compared > 1_000


def test_free_running_the_last_policy_is_that_of_a_serial_fit_of_the_stored_decisions(played: Storm) -> None:
    free = played.outcomes[1]
    assert free.wrong == []
    assert free.decisions == REDUCED.participants * REDUCED.points
    assert free.compared > 100


def test_every_kind_of_process_was_killed_and_came_back_and_the_back_end_failed_a_third_of_its_calls(
    played: Storm,
) -> None:
    for outcome in played.outcomes:
        assert len(Counter(kill.kind for kill in outcome.kills)) == 8
        assert premise.wrong(outcome, REDUCED) == []


def test_a_task_that_kills_its_worker_each_time_fails_after_a_bounded_number_of_tries(played: Storm) -> None:
    assert poison.wrong(played.poisoning, played.crashes) == []

"""Synthetic people of an Oralytics study, whose brushing is recorded after each decision."""

from collections.abc import Mapping, Sequence

import numpy as np

from rehearsal.contract import Brushing
from rehearsal.miwaves_people import calendar, enrol
from rehearsal.people import Brusher, Point

LONGEST = 180.0  # seconds; longer brushing counts as this
REACH, DECAY = 14, 13 / 14  # of the averages, in decision points
FORGETS, OPENS_APP = 0.15, 0.3  # shares of decision points


def people(count: int, points: int, seed: int) -> list[Brusher]:
    """Return `count` people with `points` decision points each; prompts help most of them."""
    return [_person(number, points, seed) for number in range(count)]


def _person(number: int, points: int, seed: int) -> Brusher:
    generator = np.random.default_rng([seed, number])
    usual, effect = generator.uniform(50, 130), generator.normal(15, 10)
    noise = generator.normal(0, 40, points)
    forgets, opens_app = (generator.random(points) < share for share in (FORGETS, OPENS_APP))

    def brushing(index: int, actions: Sequence[int]) -> Brushing:
        seconds = float(usual + effect * actions[-1] + noise[index - 1])
        recorded_seconds = 0.0 if forgets[index - 1] else round(max(seconds, 0.0), 1)
        return Brushing(recorded_seconds, bool(opens_app[index - 1]))

    enrolment = enrol(number, points)
    return Brusher(enrolment, list(calendar(enrolment, points)), brushing)


def expected_state(
    recorded: Mapping[int, Brushing], actions: Mapping[int, int], point: Point
) -> tuple[float, ...]:
    """Return the state of an Oralytics study at `point`.

    Evening (0 or 1), app used on the day before (0 or 1), and the weighted means of brushing and prompts in
    the last seven days (-1 to 1).
    """
    index = point.decision_index
    yesterday = [index - point.evening - back for back in (1, 2)]
    app = any(recorded[before].app_used for before in yesterday if before in recorded)
    seconds = {
        number: min(brushing.brushing_seconds, LONGEST) / LONGEST for number, brushing in recorded.items()
    }
    return float(point.evening), float(app), _scaled_mean(seconds, index), _scaled_mean(actions, index)


def _scaled_mean(values: Mapping[int, float], index: int) -> float:
    """Return the weighted mean of the values before point `index`, scaled from [0, 1] to [-1, 1].

    A point weighs DECAY to the power of its distance; 0 where no value of the last REACH points exists.
    """
    weights = {
        number: DECAY ** (index - number) for number in range(index - REACH, index) if number in values
    }
    if not weights:
        return 0.0
    return 2 * sum(weight * values[number] for number, weight in weights.items()) / sum(weights.values()) - 1

"""Made-up people of an Oralytics study: how they brush is recorded after each decision."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rehearsal.contract import Brushing
from rehearsal.miwaves_people import calendar, enrol
from rehearsal.people import Brusher, Point

LONGEST = 180.0  # seconds; more is not better
REACH, DECAY = 14, 13 / 14  # of the averages, in decision points
FORGETS, OPENS_APP = 0.15, 0.3  # shares of decision points


def people(count: int, points: int, seed: int) -> list[Brusher]:
    """`count` people with `points` decision points each; prompts help most of them."""
    return [_person(number, points, seed) for number in range(count)]


def _person(number: int, points: int, seed: int) -> Brusher:
    generator = np.random.default_rng([seed, number])
    usual, effect = generator.uniform(50, 130), generator.normal(15, 10)
    noise = generator.normal(0, 40, points)
    forgets, opens_app = (generator.random(points) < share for share in (FORGETS, OPENS_APP))

    def brushing(index: int, actions: Sequence[int]) -> Brushing:
        seconds = usual + effect * actions[-1] + noise[index - 1]
        seen = 0.0 if forgets[index - 1] else round(max(float(seconds), 0.0), 1)
        return Brushing(seen, bool(opens_app[index - 1]))

    enrolment = enrol(number, points)
    return Brusher(enrolment, list(calendar(enrolment, points)), brushing)


def expected_state(
    recorded: Mapping[int, Brushing], actions: Mapping[int, int], point: Point
) -> tuple[float, ...]:
    """Evening; app used on the day before; brushing and prompts of the last seven days, from -1 to 1."""
    index = point.decision_index
    yesterday = [index - point.evening - back for back in (1, 2)]
    app = any(recorded[one].app_used for one in yesterday if one in recorded)
    seconds = {one: min(brushed.brushing_seconds, LONGEST) / LONGEST for one, brushed in recorded.items()}
    return float(point.evening), float(app), _scaled(seconds, index), _scaled(actions, index)


def _scaled(values: Mapping[int, float], index: int) -> float:
    """The weighted mean of what is known of the points before `index`, each in [0, 1], as in [-1, 1]."""
    known = list(_weighted(values, index))
    total = sum(weight for weight, _ in known)
    return 2 * sum(weight * value for weight, value in known) / total - 1 if known else 0.0


def _weighted(values: Mapping[int, float], index: int) -> Iterator[tuple[float, float]]:
    for one in range(index - REACH, index):
        if one in values:
            yield DECAY ** (index - one), values[one]

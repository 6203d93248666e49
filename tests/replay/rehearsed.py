"""The participants of a small trial and their app's back end, played in the test's own process."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from algorithm.trial.hyperparameters import LEAST_PARTICIPANTS
from services.trial import rungs
from tests.support.backend import BackEnd
from tests.support.study import Study
from workers.trial import ingest, refit

PEOPLE = LEAST_PARTICIPANTS + 4
LENGTH = 20
WHY = {"reason": "a rehearsal"}
EARLIER = "2026-01-01T00:00:00Z"
SETTINGS = ("refit.min_interval_minutes=0", f"schedule.study_length={LENGTH}")


def survey(chance: random.Random) -> dict[str, Any]:
    """Answers as some person may give them."""
    if chance.random() < 0.4:
        return {"finished_ema": False, "app_use_flag": chance.random() < 0.5}
    return {
        "finished_ema": True,
        "app_use_flag": chance.random() < 0.5,
        "activity_question_response": chance.random() < 0.5,
        "cannabis_use": [] if chance.random() < 0.4 else [chance.randint(1, 11)],
    }


def told(chance: random.Random, index: int) -> dict[str, Any]:
    """What the app says of the time: nothing, the truth, or something that disagrees with itself."""
    if index % 3:
        return {}
    now = datetime.now(UTC)
    hour = 20 if index % 2 == 0 else 9
    wrong = chance.random()
    hour = (hour + 12) % 24 if wrong < 0.2 else hour
    offset = "+02:00" if wrong > 0.8 else "+00:00"
    return {"decision_time": f"{now.date().isoformat()}T{hour:02d}:30:00{offset}"}


@dataclass
class Rehearsal:
    """The trial and its back end; `play` lets everybody pass some points."""

    study: Study
    back_end: BackEnd
    chance: random.Random
    missed: set[tuple[str, int]] = field(default_factory=set)
    awaited: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def enrol(self) -> dict[str, int]:
        """Everybody's opaque id by name."""
        names = [f"person-{number}" for number in range(PEOPLE)]
        zones = ("UTC", "America/New_York")
        return {name: self.study.enrol(name, timezone=zones[name.endswith("5")]) for name in names}

    def play(self, people: list[str], first: int, last: int) -> None:
        """Let these people pass the decision points from `first` to `last`."""
        for index in range(first, last + 1):
            for user_id in people:
                self.point(user_id, index)

    def point(self, user_id: str, index: int) -> None:
        """One decision point: sometimes missed, repeated with other answers, or never ended."""
        if (user_id, index) in self.missed or (self.chance.random() < 0.06 and 1 < index < 12):
            return
        answers = survey(self.chance)
        more = answers | told(self.chance, index)
        if index > 13 and self.chance.random() < 0.15:
            more["available"] = False
        decided = self.study.decide(user_id, decision_index=index, **more)
        if self.chance.random() < 0.1:
            self.study.decide(user_id, decision_index=index, **survey(self.chance))
        if self.chance.random() < 0.9:
            self.window(user_id, decided, answers)

    def window(self, user_id: str, decided: dict[str, Any], answers: dict[str, Any]) -> None:
        """End a window; the back end's data confirm, correct or contradict, or are not there."""
        issued = ("seed", "act_prob", "policy_id", "decision_index", "rid", "act_gen_timestamp")
        item = {name: decided[name] for name in issued} | {"action_taken": decided["action"], **answers}
        item |= {"user_id": user_id, "message_notification_sent_time": "2026-11-21 08:01:02"}
        fate = self.chance.random()
        if fate < 0.25:
            item |= survey(self.chance) | {"timestamp_finished_ema": EARLIER}
        elif fate < 0.35:
            item |= {"seed": 7, "act_prob": 0.5}
        self.back_end.has(*([] if fate > 0.9 else [item]))
        ended = self.study.end(user_id, decision_index=decided["decision_index"])
        ingest.run(ended["job_id"])
        if fate > 0.9:
            self.awaited.append((ended["job_id"], item))

    def catch_up(self) -> None:
        """Survey data that come after fits have learnt from the first answers, and correct them."""
        for job_id, item in self.awaited:
            changed = {"finished_ema": not item["finished_ema"], "timestamp_finished_ema": EARLIER}
            self.back_end.has(item | {"activity_question_response": False, "cannabis_use": []} | changed)
            (job,) = self.study.rows("SELECT window_id FROM jobs WHERE id = %s", job_id)
            self.study.call("POST", f"/windows/{job['window_id']}/retry", role="admin")
            ingest.run(job_id)
        self.awaited.clear()

    def fit(self, path: str = "/update_parameters") -> int:
        """Refit; the number of the policy that serves now."""
        answer = self.study.call("POST", path)
        refit.run(answer.json["job_id"])  # type: ignore[index]
        return int(self._study()["policy_id"])

    def fit_queued(self) -> int:
        """Run the refit that an act has asked for; the number of the policy that serves now."""
        query = "SELECT id FROM jobs WHERE (study_id, kind, state) = (%s, 'refit', 'queued')"
        (job,) = self.study.rows(query, self.study.study_id)
        refit.run(job["id"])
        return int(self._study()["policy_id"])

    def ask(self, path: str) -> None:
        """An act of the study's admin."""
        answer = self.study.call("POST", path, WHY, role="admin")
        assert answer.status_code in {200, 202}, answer.text

    def _study(self) -> dict[str, Any]:
        return self.study.rows("SELECT policy_id FROM studies WHERE id = %s", self.study.study_id)[0]

    def spoil(self, table: str, column: str, policy_id: int, person: int | None = None) -> None:
        """Overwrite a mean with what is no number."""
        whose = "" if person is None else f" AND participant_id = {person}"
        statement = (
            f"UPDATE {table} SET {column} = array_fill('NaN'::float8, ARRAY[8])"
            f" WHERE (study_id, policy_id) = (%s, %s){whose}"
        )
        assert self.study.tamper(statement, self.study.study_id, policy_id)
        rungs._populations.clear()

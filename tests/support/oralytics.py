"""A study of the Oralytics protocol in the test's process, played by what its back end would see."""

import random
from dataclasses import dataclass, field
from typing import Any

from tests.support.backend import BackEnd
from tests.support.study import Study
from workers.trial import ingest, refit

ISSUED = ("seed", "act_prob", "policy_id", "decision_index", "rid", "act_gen_timestamp")


def item(user_id: str, decided: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The item of an honest back end for a decision."""
    recorded = {"brushing_seconds": 90.0, "app_used": False}
    told = {"user_id": user_id, "action_taken": decided["action"], **recorded}
    return told | {name: decided[name] for name in ISSUED} | changes


@dataclass
class Brushers:
    """The study and its back end."""

    study: Study
    back_end: BackEnd
    chance: random.Random = field(default_factory=lambda: random.Random(11))

    def decide(self, user_id: str, **more: Any) -> dict[str, Any]:
        """A decision that must succeed."""
        answer = self.study.call("POST", "/decision_points", {"user_id": user_id, **more})
        assert answer.status_code == 200, answer.text
        return dict(answer.json)  # type: ignore[arg-type]

    def record(self, user_id: str, *items: dict[str, Any]) -> str:
        """End the open window, whose data are `items`; the state of its ingest job afterwards."""
        job_id = self.study.end(user_id)["job_id"]
        return self.ingest(job_id, *items)

    def ingest(self, job_id: int, *items: dict[str, Any]) -> str:
        """Let an ingest job find `items`; its state afterwards."""
        self.back_end.has(*items)
        ingest.run(job_id)
        (job,) = self.study.rows("SELECT state, code FROM jobs WHERE id = %s", job_id)
        return f"{job['state']} {job['code']}" if job["code"] else str(job["state"])

    def live(self, user_id: str, points: int) -> None:
        """Let a participant pass this many points as some person may."""
        for _ in range(points):
            decided = self.decide(user_id)
            brushed = {
                "brushing_seconds": round(self.chance.uniform(0, 200), 1),
                "app_used": self.chance.random() < 0.3,
            }
            assert self.record(user_id, item(user_id, decided, **brushed)) == "done"

    def fit(self) -> int:
        """Refit; how many rows the policy that serves now was fitted from."""
        refit.run(self.study.call("POST", "/update_parameters").get_json()["job_id"])
        return int(self.study.call("GET", "/study").get_json()["policy_rows"])

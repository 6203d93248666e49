"""Nothing holds a transaction of the database open while it waits for a back end or computes."""

from typing import Any

import pytest

from algorithm.trial import learner
from settings import settings
from tests.support.backend import BackEnd
from tests.support.study import Study, cursor
from tests.workers.trial.test_ingest import decide_and_end, item
from workers.trial import ema_client, ingest, refit

STATES = """
SELECT state FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


def test_no_transaction_is_open_while_a_back_end_is_asked_or_a_policy_fitted(
    ema_study: Study, back_end: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[str]] = {}

    def watched(module: Any, name: str) -> None:
        really = getattr(module, name)

        def look(*given: Any) -> Any:
            with cursor(settings().database_url) as found:
                found.execute(STATES)
                seen.setdefault(name, set()).update(row["state"] for row in found.fetchall())
            return really(*given)

        monkeypatch.setattr(module, name, look)

    watched(ema_client, "survey_data")
    watched(learner, "fit_statistics")
    ema_study.enrol("ann")
    for _ in range(3):
        decided, job_id = decide_and_end(ema_study)
        back_end.has(item(decided))
        ingest.run(job_id)
    refit.run(ema_study.call("POST", "/update_parameters").get_json()["job_id"])
    assert seen == {"survey_data": {"idle"}, "fit_statistics": {"idle"}}

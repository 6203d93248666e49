"""Who may not call is told that first, also where the call would not be understood."""

import pytest

from tests.support.study import Trial

PATHS = ("/actions", "/end_decision_window", "/register", "/study/pause")
WRONG: dict[str, object] = {"user_id": 17}


@pytest.mark.parametrize("path", PATHS)
def test_a_token_that_was_revoked_gets_401(trial: Trial, path: str) -> None:
    assert trial.call("POST", path, WRONG, role="admin").status_code == 422
    trial.call("POST", "/auth/logout", role="admin")
    assert trial.call("POST", path, WRONG, role="admin").status_code == 401


@pytest.mark.parametrize("path", PATHS)
def test_another_role_gets_403(trial: Trial, path: str) -> None:
    assert trial.call("POST", path, WRONG, role="researcher").status_code == 403

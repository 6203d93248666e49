"""Who may not call is told that first, also where the call would not be understood."""

import pytest

from tests.support.study import Study

PATHS = ("/actions", "/end_decision_window", "/register", "/study/pause")
WRONG: dict[str, object] = {"user_id": 17}


@pytest.mark.parametrize("path", PATHS)
def test_a_token_that_was_revoked_gets_401(study: Study, path: str) -> None:
    assert study.call("POST", path, WRONG, role="admin").status_code == 422
    study.call("POST", "/auth/logout", role="admin")
    assert study.call("POST", path, WRONG, role="admin").status_code == 401


@pytest.mark.parametrize("path", PATHS)
def test_another_role_gets_403(study: Study, path: str) -> None:
    assert study.call("POST", path, WRONG, role="researcher").status_code == 403

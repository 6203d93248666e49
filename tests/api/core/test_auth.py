"""Passwords, tokens and their end: what lets a caller in, and from when on it does not."""

import base64
import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import jwt
import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type
from werkzeug.test import TestResponse

from api.core import auth
from local.embedded import Embedded
from settings import settings
from tests.support.configured import configured
from tests.support.service import Service
from tests.support.study import Study, begin

NEW_KEY, OLD_KEY = "N" * 16 + "new-signing-key-1", "O" * 16 + "old-signing-key-1"
ROOT = Path(__file__).parents[3]
COST = extract_parameters(
    auth._hasher.hash("any")
)  # of the service's own hasher, before a test has a cheap one


def get_study(service: Service, token: str) -> TestResponse:
    """A request that needs a token, with this one."""
    return service.app.test_client().get("/study", headers={"Authorization": f"Bearer {token}"})


def login(service: Service, name: str, password: str) -> TestResponse:
    return service.call("POST", "/auth/login", {"api_user": name, "api_pass": password})


def refusal(answer: TestResponse) -> tuple[int, int]:
    body: dict[str, Any] = answer.get_json()
    assert body["status"] == "fail"
    return answer.status_code, body["error_code"]


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def forged(study: Study, key: str, algorithm: str = "HS256", /, **changes: object) -> str:
    claims = {**claims_of(study.tokens["client"]), **changes}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm)


def account(study: Study, name: str, role: str = "client") -> str:
    """A new account of the study; its password."""
    made = study.service.command("client", "create", name, "--study", study.name, "--role", role)
    return str(made["password"])


def test_passwords_are_stored_as_argon2id(study: Study) -> None:
    account(study, "stored")
    (row,) = study.rows("SELECT password_hash FROM clients WHERE name = 'stored'")
    assert extract_parameters(row["password_hash"]).type is Type.ID


def test_a_hash_costs_what_owasp_asks_for() -> None:
    assert COST.type is Type.ID
    assert COST.memory_cost >= 19 * 1024  # KiB
    assert COST.time_cost >= 2


def test_a_token_names_its_bearer_study_role_and_itself(study: Study) -> None:
    token = study.tokens["client"]
    claims = claims_of(token)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert set(claims) == {"sub", "study", "role", "jti", "iat", "exp"}
    assert (claims["study"], claims["role"]) == (study.study_id, "client")
    assert claims["exp"] - claims["iat"] == 24 * 3600
    assert claims["jti"] != claims_of(study.tokens["admin"])["jti"]


def test_a_logged_out_token_stays_out_in_another_process(study: Study) -> None:
    assert study.call("POST", "/auth/logout").status_code == 200
    assert refusal(study.call("GET", "/study")) == (401, 2)
    assert refusal(study.call("POST", "/auth/logout")) == (401, 10)
    script = (
        "import sys; from api.app import create_app; client = create_app().test_client();"
        "print(client.get('/study', headers={'Authorization': sys.stdin.read()}).get_json()['error_code'])"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", script],
        input=f"Bearer {study.tokens['client']}",
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert elsewhere.stdout.strip() == "2"


def test_a_revocation_is_kept_until_its_token_would_have_expired(study: Study) -> None:
    study.call("POST", "/auth/logout")
    study.tamper("UPDATE revoked_tokens SET expires_at = now() WHERE study_id = %s", study.study_id)
    study.call("POST", "/auth/logout", role="admin")
    (left,) = study.rows("SELECT jti, expires_at FROM revoked_tokens WHERE study_id = %s", study.study_id)
    claims = claims_of(study.tokens["admin"])
    assert (left["jti"], left["expires_at"].timestamp()) == (claims["jti"], claims["exp"])


@pytest.mark.parametrize("header", ["Basic abc", "Bearer", "Bearer ", "bearer a b", "token", "Bearer  a"])
def test_a_malformed_header_is_told_apart(shared_service: Service, header: str) -> None:
    answer = shared_service.app.test_client().get("/study", headers={"Authorization": header})
    assert refusal(answer) == (401, 0)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_forged_tokens_are_refused(study: Study) -> None:
    key = settings().signing_keys[0]
    now = datetime.now(UTC)
    unsigned = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "none", "typ": "JWT"}, claims_of(study.tokens["admin"]))
    )
    tokens = {
        "another key": forged(study, "x" * 40),
        "no signature": f"{unsigned}.",
        "another algorithm under the same key": forged(study, key, "HS512"),
        "expired": forged(study, key, exp=now - timedelta(seconds=1)),
        "from the future": forged(study, key, iat=now + timedelta(hours=1)),
        "no expiry": forged(study, key, exp=None),
        "no id": forged(study, key, jti=None),
        "nobody's": forged(study, key, sub="999999"),
        "another study's": forged(study, key, study=999999),
        "no number": forged(study, key, sub="one"),
        "a huge number": forged(study, key, sub="9" * 30),
        "letters of another alphabet": "ß.þ.ÿ",
        "rubbish": "a.b.c",
    }
    found = {name: refusal(get_study(study.service, token)) for name, token in tokens.items()}
    assert found == dict.fromkeys(tokens, (401, 2))
    assert get_study(study.service, forged(study, key)).status_code == 200


def test_the_role_in_a_token_counts_for_nothing(study: Study) -> None:
    study.tokens["client"] = forged(study, settings().signing_keys[0], role="admin")
    assert refusal(study.call("POST", "/study/pause", {"reason": "a test"})) == (403, 908)


def test_a_disabled_account_is_out_at_once_and_may_be_let_in_again(study: Study) -> None:
    study.service.command("client", "disable", f"client@{study.name}")
    assert refusal(study.call("GET", "/study")) == (401, 2)
    assert refusal(study.post_actions("ann")) == (401, 2)
    study.service.command("client", "enable", f"client@{study.name}")
    assert study.call("GET", "/study").status_code == 200


def test_a_disabled_account_learns_nothing_of_keys(study: Study) -> None:
    study.enrol("ann")
    study.post_actions("ann", key="once")
    assert study.post_actions("ann", key="once", decision_index=2).status_code == 422
    study.service.command("client", "disable", f"client@{study.name}")
    assert refusal(study.post_actions("ann", key="once", decision_index=2)) == (401, 2)


def test_a_disabled_account_cannot_log_in(study: Study) -> None:
    password = account(study, "locked")
    study.service.command("client", "disable", "locked")
    assert refusal(login(study.service, "locked", password)) == (401, 7)
    study.service.command("client", "enable", "locked")
    assert login(study.service, "locked", password).status_code == 200


def test_a_changed_role_takes_effect_under_the_old_token(study: Study) -> None:
    study.service.command("client", "role", f"client@{study.name}", "researcher")
    assert refusal(study.post_actions("ann")) == (403, 908)
    study.service.command("client", "role", f"client@{study.name}", "client")
    assert refusal(study.post_actions("ann")) == (404, 203)


def test_a_new_password_ends_the_old_one_and_every_token(study: Study) -> None:
    before = account(study, "renewed", "admin")
    token = study.service.login("renewed", before)
    after = study.service.command("client", "password", "renewed")["password"]
    assert refusal(get_study(study.service, token)) == (401, 2)
    assert refusal(login(study.service, "renewed", before)) == (401, 7)
    renewed = study.service.login("renewed", after)
    assert get_study(study.service, renewed).status_code == 200
    assert claims_of(renewed)["role"] == "admin"


def test_unknown_names_and_wrong_passwords_get_the_same_answer(study: Study) -> None:
    account(study, "known")
    answers = [login(study.service, name, "wrong") for name in ("known", "nobody")]
    assert [refusal(answer) for answer in answers] == [(401, 7)] * 2
    assert answers[0].get_json() == answers[1].get_json()


def test_unknown_names_cost_a_hash_too(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    account(study, "dear")
    checked: list[str] = []

    class Watched(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            checked.append(str(hash))
            return super().verify(hash, password)

    monkeypatch.setattr(auth, "_hasher", Watched())
    auth._nobody.cache_clear()
    stored = auth._hasher.hash("another")
    study.tamper("UPDATE clients SET password_hash = %s WHERE name = 'dear'", stored)
    for name in ("dear", "nobody"):
        assert refusal(login(study.service, name, "wrong")) == (401, 7)
    costs = [extract_parameters(password_hash) for password_hash in checked]
    assert costs == [extract_parameters(stored)] * 2


def test_tokens_are_not_to_be_cached(shared_service: Service) -> None:
    for path in ("/auth/login", "/auth/register", "/auth/logout"):
        answer = shared_service.call("POST", path, {})
        assert answer.headers["Cache-Control"] == "no-store"


def test_two_keys_verify_and_the_first_signs(embedded: Embedded, fresh_database: str) -> None:
    with configured(embedded, fresh_database, KAIROS_SIGNING_KEYS=OLD_KEY) as service:
        study = begin(service)
        old, password = study.tokens["client"], account(study, "app")
    with configured(embedded, fresh_database, KAIROS_SIGNING_KEYS=f"{NEW_KEY},{OLD_KEY}") as service:
        assert get_study(service, old).status_code == 200
        new = service.login("app", password)
        assert get_study(service, new).status_code == 200
        jwt.decode(new, NEW_KEY, ["HS256"])
    with configured(embedded, fresh_database, KAIROS_SIGNING_KEYS=NEW_KEY) as service:
        assert refusal(get_study(service, old)) == (401, 2)
        assert get_study(service, new).status_code == 200


def test_a_flood_of_logins_leaves_threads_for_decisions(shared_service: Service) -> None:
    """Of eight at once, while others hash, four wait for their turn; the rest are told to come back."""
    with ExitStack() as hashing, ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            hashing.enter_context(auth._hashing)
        asked = [pool.submit(login, shared_service, f"flood {number}", "wrong") for number in range(8)]
        early = [done.result() for done in itertools.islice(as_completed(asked, timeout=60), 4)]
        hashing.close()
        late = [done.result() for done in asked if done.result() not in early]
    assert [refusal(answer) for answer in early] == [(429, 906)] * 4
    assert all(answer.headers["Retry-After"].isdigit() for answer in early)
    assert [refusal(answer) for answer in late] == [(401, 7)] * 4

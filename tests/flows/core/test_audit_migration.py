"""Migration 0005 makes a chain of the audit that a deployment has; its way back takes nothing else away."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import audit_chain
from tests.support.study import cursor

ROOT = Path(__file__).parents[3]
BEFORE = """
INSERT INTO studies (name, timezone, ema_timezone, ema_url, study_key, study_key_sha256, protocol_version,
    policy_id)
    SELECT name, 'UTC', 'UTC', 'https://x', '', repeat(name, 64), 1, 0 FROM unnest('{a,b}'::text[]) name;
INSERT INTO clients (study_id, name, password_hash, role) SELECT id, name, '', 'admin' FROM studies;
INSERT INTO audit (study_id, client_id, act, reason)
    SELECT s.id, c.id, 'pause', 'reason ü ' || n FROM generate_series(1, 3) n, studies s
    JOIN clients c ON c.study_id = s.id ORDER BY s.id, n;
"""


def migrate(url: str, *words: str) -> None:
    environment = {**os.environ, "DATABASE_URL": url}
    command = [sys.executable, "-m", "alembic", *words]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)


def rows(url: str) -> list[dict[str, Any]]:
    with cursor(url) as found:
        found.execute("SELECT a.*, s.study_key_sha256 FROM audit a JOIN studies s ON s.id = a.study_id")
        return [dict(row) for row in found.fetchall()]


def test_what_there_was_is_chained(fresh_database: str) -> None:
    migrate(fresh_database, "downgrade", "0004")
    with cursor(fresh_database) as found:
        found.execute(BEFORE)
    migrate(fresh_database, "upgrade", "0005")
    for name in ("a", "b"):
        mine = [row for row in rows(fresh_database) if row["study_key_sha256"] == name * 64]
        assert audit_chain.check(mine, name * 64) == []
        told = [(row["seq"], row["act"], row["role"]) for row in sorted(mine, key=lambda row: row["seq"])]
        assert told == [(1, "create_study", "service"), *((seq, "pause", "admin") for seq in (2, 3, 4))]
        assert [row["reason"][-1] for row in sorted(mine, key=lambda row: row["id"]) if row["seq"] > 1] == [
            "1",
            "2",
            "3",
        ]
    migrate(fresh_database, "downgrade", "0004")
    assert {row["act"] for row in rows(fresh_database)} == {"pause"}
    assert len(rows(fresh_database)) == 6

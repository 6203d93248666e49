"""The audit as a chain, tables that refuse to be rewritten, proposals, removals from learning, closing."""

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

APPEND_ONLY = (*("audit", "decisions", "answers", "policies", "discrepancies", "learning_rows", "protocols"),)
ROLES = "('client', 'researcher', 'admin', 'operator', 'service')"
HASHED = (
    *("seq", "created_at", "client_id", "role", "participant_id", "act", "reason"),
    *("before", "after", "prev_hash"),
)
# Migrations may, where the owner of the table runs them: migrations/env.py says that it is one.
REFUSE = """
CREATE FUNCTION kairos_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('kairos.migration', true) = 'on'
       AND (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = TG_RELID) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'the table % is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$
"""


def upgrade() -> None:
    _chain()
    _proposals()
    op.add_column("participants", sa.Column("removed_row_seq", sa.BigInteger(), nullable=True))
    op.add_column("studies", sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True))
    op.alter_column("notifications", "incident_id", nullable=True)
    op.execute(REFUSE)
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION kairos_refuse()"
        )


def _chain() -> None:
    op.add_column("audit", sa.Column("seq", sa.BigInteger(), nullable=True))
    op.add_column("audit", sa.Column("role", sa.Text(), nullable=True))
    op.add_column("audit", sa.Column("before", postgresql.JSONB(), nullable=True))
    op.add_column("audit", sa.Column("after", postgresql.JSONB(), nullable=True))
    op.add_column("audit", sa.Column("prev_hash", sa.Text(), nullable=True))
    op.add_column("audit", sa.Column("hash", sa.Text(), nullable=True))
    op.alter_column("audit", "client_id", nullable=True)
    _convert(op.get_bind())
    for column in ("seq", "role", "prev_hash", "hash"):
        op.alter_column("audit", column, nullable=False)
    op.create_unique_constraint("uq_audit_study_id_seq", "audit", ["study_id", "seq"])
    op.create_check_constraint("ck_audit_role", "audit", f"role IN {ROLES}")


def _convert(connection: sa.Connection) -> None:
    """Chain what there is. Each study's chain begins with a row that tells its creation."""
    begin = sa.text(
        "INSERT INTO audit (study_id, act, reason, role, after, created_at) "
        "VALUES (:study_id, 'create_study', 'as found by migration 0005', 'service', "
        "CAST(:after AS jsonb), :created_at) RETURNING id"
    )
    studies = connection.execute(sa.text("SELECT id, study_key_sha256, created_at FROM studies")).all()
    for study_id, key_sha256, created_at in studies:
        after = json.dumps({"study_key_sha256": key_sha256})
        told = {"study_id": study_id, "after": after, "created_at": created_at}
        first = connection.execute(begin, told).scalar_one()
        found = connection.execute(
            sa.text(
                "SELECT a.*, coalesce(a.role, c.role) AS known_role FROM audit a "
                "LEFT JOIN clients c ON c.id = a.client_id WHERE a.study_id = :study_id "
                "ORDER BY a.id <> :first, a.id"
            ),
            {"study_id": study_id, "first": first},
        )
        _link(connection, found.mappings().all(), key_sha256)


def _link(connection: sa.Connection, rows: Iterable[Any], before: str) -> None:
    """Give the rows of a study, in this order, their numbers and hashes."""
    statement = sa.text(
        "UPDATE audit SET seq = :seq, role = :role, prev_hash = :prev_hash, hash = :hash WHERE id = :id"
    )
    for seq, row in enumerate(rows, 1):
        linked = {**row, "seq": seq, "role": row["known_role"], "prev_hash": before}
        linked["created_at"] = row["created_at"].astimezone(UTC).isoformat(timespec="microseconds")
        told = {name: linked[name] for name in HASHED}
        text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        before = hashlib.sha256(text.encode()).hexdigest()
        connection.execute(statement, {**linked, "hash": before})


def _proposals() -> None:
    op.create_table(
        "proposals",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("arguments", postgresql.JSONB(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("proposed_by", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_by", sa.BigInteger(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('open', 'approved', 'rejected')", name="ck_proposals_state"),
        sa.CheckConstraint("(state = 'open') = (decided_at IS NULL)", name="ck_proposals_open_is_undecided"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_proposals_study_id"),
        sa.ForeignKeyConstraint(["proposed_by"], ["clients.id"], name="fk_proposals_proposed_by"),
        sa.ForeignKeyConstraint(["decided_by"], ["clients.id"], name="fk_proposals_decided_by"),
        sa.PrimaryKeyConstraint("id", name="pk_proposals"),
    )
    op.create_index("ix_proposals_study_id_id", "proposals", ["study_id", "id"])


def downgrade() -> None:
    for table in APPEND_ONLY:
        op.execute(f"DROP TRIGGER {table}_append_only ON {table}")
    op.execute("DROP FUNCTION kairos_refuse()")
    op.execute("DELETE FROM notifications WHERE incident_id IS NULL")
    op.alter_column("notifications", "incident_id", nullable=False)
    op.drop_column("studies", "closed_at")
    op.drop_column("participants", "removed_row_seq")
    op.drop_table("proposals")
    op.drop_constraint("ck_audit_role", "audit")
    op.drop_constraint("uq_audit_study_id_seq", "audit")
    op.execute("DELETE FROM audit WHERE client_id IS NULL")  # the table of before has no room for them
    op.alter_column("audit", "client_id", nullable=False)
    for column in ("hash", "prev_hash", "after", "before", "role", "seq"):
        op.drop_column("audit", column)

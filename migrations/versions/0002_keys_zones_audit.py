"""Idempotency keys of their own, the history of participants' time zones, and reasons for what admins do."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEYED = ("decisions", "windows")


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False)


def _reference(name: str, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _created_at() -> sa.Column[object]:
    return sa.Column(
        "created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )


def _foreign(table: str, column: str, to: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{to}.id"], name=f"fk_{table}_{column}")


def upgrade() -> None:
    _keys()
    _zones()
    _audit()
    # every decision rewrites its participant's row: room on the page spares the indexes
    op.execute("ALTER TABLE participants SET (fillfactor = 50)")


def _keys() -> None:
    op.create_table(
        "idempotency_keys",
        _reference("study_id"),
        _reference("participant_id"),
        sa.Column("call", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("decision_index", sa.Integer(), nullable=False),
        _created_at(),
        sa.CheckConstraint("call IN ('actions', 'end_decision_window')", name="ck_idempotency_keys_call"),
        _foreign("idempotency_keys", "participant_id", "participants"),
        _foreign("idempotency_keys", "study_id", "studies"),
        sa.PrimaryKeyConstraint("participant_id", "call", "key", name="pk_idempotency_keys"),
    )
    for table, call in zip(KEYED, ("actions", "end_decision_window"), strict=True):
        op.execute(
            "INSERT INTO idempotency_keys (study_id, participant_id, call, key, decision_index) "
            f"SELECT study_id, participant_id, '{call}', idempotency_key, decision_index FROM {table} "
            "WHERE idempotency_key IS NOT NULL"
        )
        op.drop_index(f"uq_{table}_idempotency_key", table)
        op.drop_column(table, "idempotency_key")


def _zones() -> None:
    op.create_table(
        "participant_zones",
        _id(),
        _reference("study_id"),
        _reference("participant_id"),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decision_index", sa.Integer(), nullable=False),
        _foreign("participant_zones", "participant_id", "participants"),
        _foreign("participant_zones", "study_id", "studies"),
        sa.PrimaryKeyConstraint("id", name="pk_participant_zones"),
        sa.UniqueConstraint(
            "participant_id", "decision_index", name="uq_participant_zones_participant_id_decision_index"
        ),
    )
    op.execute(
        "INSERT INTO participant_zones (study_id, participant_id, timezone, since, decision_index) "
        "SELECT study_id, id, timezone, created_at, 0 FROM participants ORDER BY id"
    )


def _audit() -> None:
    op.create_table(
        "audit",
        _id(),
        _reference("study_id"),
        _reference("client_id"),
        _reference("participant_id", nullable=True),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        _created_at(),
        _foreign("audit", "client_id", "clients"),
        _foreign("audit", "participant_id", "participants"),
        _foreign("audit", "study_id", "studies"),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_study_id_id", "audit", ["study_id", "id"])


def downgrade() -> None:
    op.execute("ALTER TABLE participants RESET (fillfactor)")
    for table in ("audit", "participant_zones"):
        op.drop_table(table)
    for table, call in zip(KEYED, ("actions", "end_decision_window"), strict=True):
        op.add_column(table, sa.Column("idempotency_key", sa.Text(), nullable=True))
        op.execute(
            f"UPDATE {table} t SET idempotency_key = k.key FROM idempotency_keys k "
            f"WHERE k.participant_id = t.participant_id AND k.decision_index = t.decision_index "
            f"AND k.call = '{call}'"
        )
        op.create_index(
            f"uq_{table}_idempotency_key",
            table,
            ["participant_id", "idempotency_key"],
            unique=True,
            postgresql_where=sa.text("idempotency_key IS NOT NULL"),
        )
    op.drop_table("idempotency_keys")

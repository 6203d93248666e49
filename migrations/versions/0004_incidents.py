"""Incidents, their notifications, heartbeats, circuits, and the running test of the draws."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = ("heartbeats", "circuits", "incidents", "notifications", "randomisation_tests")


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False)


def _reference(name: str, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _instant(name: str, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _whole(name: str, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), server_default=default, nullable=False)


def _foreign(table: str, column: str, to: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{to}.id"], name=f"fk_{table}_{column}")


def upgrade() -> None:
    _watched()
    _incidents()
    _notifications()
    _indexes()


def _watched() -> None:
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.Text(), nullable=False),
        _instant("at"),
        sa.PrimaryKeyConstraint("name", name="pk_heartbeats"),
    )
    op.create_table(
        "circuits",
        _reference("study_id"),
        sa.Column("state", sa.Text(), server_default="closed", nullable=False),
        _whole("failures", "0"),
        _instant("opened_at", nullable=True),
        _instant("retry_at", nullable=True),
        sa.CheckConstraint("state IN ('closed', 'open', 'half_open')", name="ck_circuits_state"),
        _foreign("circuits", "study_id", "studies"),
        sa.PrimaryKeyConstraint("study_id", name="pk_circuits"),
    )
    op.create_table(
        "randomisation_tests",
        _reference("study_id"),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        _reference("last_rid"),
        _whole("decisions"),
        _whole("mismatched"),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("log_wealth", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("log_evidence", sa.Double(), nullable=False),
        _foreign("randomisation_tests", "study_id", "studies"),
        sa.PrimaryKeyConstraint("study_id", "stream", name="pk_randomisation_tests"),
    )


def _incidents() -> None:
    op.create_table(
        "incidents",
        _id(),
        _reference("study_id", nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(), nullable=False),
        _instant("first_at"),
        _instant("last_at"),
        _whole("count", "1"),
        _instant("resolved_at", nullable=True),
        _reference("acknowledged_by", nullable=True),
        _instant("acknowledged_at", nullable=True),
        _whole("notices", "0"),
        sa.Column("notified_level", sa.Text(), nullable=True),
        _instant("notified_at", nullable=True),
        sa.CheckConstraint("level IN ('red', 'yellow', 'green')", name="ck_incidents_level"),
        sa.CheckConstraint(
            "(level = 'green') = (resolved_at IS NOT NULL)", name="ck_incidents_green_is_over"
        ),
        sa.CheckConstraint(
            "(study_id IS NULL) = (kind IN ('beat_silent', 'workers_silent'))",
            name="ck_incidents_of_a_study_or_all",
        ),
        _foreign("incidents", "study_id", "studies"),
        _foreign("incidents", "acknowledged_by", "clients"),
        sa.PrimaryKeyConstraint("id", name="pk_incidents"),
    )
    op.create_index(
        "uq_incidents_open",
        "incidents",
        ["study_id", "kind"],
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
        postgresql_nulls_not_distinct=True,
    )
    op.create_index("ix_incidents_study_id_id", "incidents", ["study_id", "id"])


def _notifications() -> None:
    op.create_table(
        "notifications",
        _id(),
        _reference("study_id", nullable=True),
        _reference("incident_id"),
        _whole("number"),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("message", postgresql.JSONB(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        _whole("attempts", "0"),
        _instant("run_after"),
        _instant("claimed_at", nullable=True),
        _instant("finished_at", nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("channel IN ('webhook', 'email')", name="ck_notifications_channel"),
        sa.CheckConstraint("state IN ('queued', 'sending', 'sent', 'failed')", name="ck_notifications_state"),
        _foreign("notifications", "study_id", "studies"),
        _foreign("notifications", "incident_id", "incidents"),
        sa.PrimaryKeyConstraint("id", name="pk_notifications"),
        sa.UniqueConstraint(
            "incident_id", "number", "channel", name="uq_notifications_incident_id_number_channel"
        ),
    )
    op.create_index(
        "ix_notifications_unfinished",
        "notifications",
        ["state", "run_after"],
        postgresql_where=sa.text("state IN ('queued', 'sending')"),
    )


def _indexes() -> None:
    """What the watchdog asks for each minute. A BRIN index costs a decision next to nothing."""
    op.create_index(
        "ix_decisions_act_gen_timestamp", "decisions", ["act_gen_timestamp"], postgresql_using="brin"
    )
    op.create_index(
        "ix_windows_end_missing",
        "windows",
        ["study_id", "ended_at"],
        postgresql_where=sa.text("kind = 'end_missing'"),
    )
    op.create_index(
        "ix_jobs_refits", "jobs", ["study_id", "claimed_at"], postgresql_where=sa.text("kind = 'refit'")
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_refits", "jobs")
    op.drop_index("ix_windows_end_missing", "windows")
    op.drop_index("ix_decisions_act_gen_timestamp", "decisions")
    for table in reversed(TABLES):
        op.drop_table(table)

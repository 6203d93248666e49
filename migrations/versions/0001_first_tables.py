"""The first tables: from studies and their protocols to decisions, windows, policies and jobs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "studies",
    "clients",
    "participants",
    "protocols",
    "revoked_tokens",
    "decisions",
    "policies",
    "policy_blocks",
    "windows",
    "answers",
    "discrepancies",
    "jobs",
    "learning_rows",
)


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("ema_timezone", sa.Text(), nullable=False),
        sa.Column("ema_url", sa.Text(), nullable=False),
        sa.Column("ema_token", sa.LargeBinary(), nullable=True),
        sa.Column("study_key", sa.LargeBinary(), nullable=False),
        sa.Column("study_key_sha256", sa.Text(), nullable=False),
        sa.Column("protocol_version", sa.Integer(), nullable=False),
        sa.Column("policy_id", sa.Integer(), nullable=False),
        sa.Column("row_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("learning_frozen", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_studies"),
        sa.UniqueConstraint("name", name="uq_studies_name"),
    )
    op.create_table(
        "clients",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("role IN ('client', 'researcher', 'admin')", name="ck_clients_role"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_clients_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_clients"),
        sa.UniqueConstraint("name", name="uq_clients_name"),
    )
    op.create_table(
        "participants",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), server_default="REGISTERED", nullable=False),
        sa.Column("decision_index", sa.Integer(), server_default="0", nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("rl_start_date", sa.Date(), nullable=False),
        sa.Column("rl_end_date", sa.Date(), nullable=False),
        sa.Column("consent_start_date", sa.Date(), nullable=False),
        sa.Column("consent_end_date", sa.Date(), nullable=False),
        sa.Column("morning_notification_time_start", postgresql.ARRAY(sa.SmallInteger()), nullable=False),
        sa.Column("evening_notification_time_start", postgresql.ARRAY(sa.SmallInteger()), nullable=False),
        sa.Column("registration", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "phase IN ('REGISTERED', 'STARTED', 'COMPLETED_AWAITING_REVIEW', 'ENDED', 'WITHDRAWN')",
            name="ck_participants_phase",
        ),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_participants_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_participants"),
        sa.UniqueConstraint("study_id", "user_id", name="uq_participants_study_id_user_id"),
    )
    op.create_table(
        "protocols",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("history", sa.Integer(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_protocols_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_protocols"),
        sa.UniqueConstraint("study_id", "version", name="uq_protocols_study_id_version"),
    )
    op.create_table(
        "revoked_tokens",
        sa.Column("jti", sa.Text(), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_revoked_tokens_study_id"),
        sa.PrimaryKeyConstraint("jti", name="pk_revoked_tokens"),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("participant_id", sa.BigInteger(), nullable=False),
        sa.Column("decision_index", sa.Integer(), nullable=False),
        sa.Column("protocol_id", sa.BigInteger(), nullable=False),
        sa.Column("protocol_hash", sa.Text(), nullable=False),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column("policy_id", sa.Integer(), nullable=True),
        sa.Column("feature_version", sa.Text(), nullable=False),
        sa.Column("state", postgresql.ARRAY(sa.Double()), nullable=True),
        sa.Column("advantage_mean", sa.Double(), nullable=True),
        sa.Column("advantage_variance", sa.Double(), nullable=True),
        sa.Column("act_prob", sa.Double(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.SmallInteger(), nullable=False),
        sa.Column("fallback_level", sa.Text(), nullable=False),
        sa.Column("available", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("answers", postgresql.JSONB(), nullable=False),
        sa.Column("reward", sa.Double(), nullable=True),
        sa.Column("evening", sa.Boolean(), nullable=False),
        sa.Column("decision_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("utc_offset_minutes", sa.SmallInteger(), nullable=False),
        sa.Column("act_gen_timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["participant_id"], ["participants.id"], name="fk_decisions_participant_id"),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
        sa.UniqueConstraint(
            "participant_id", "decision_index", name="uq_decisions_participant_id_decision_index"
        ),
    )
    op.create_index("ix_decisions_study_id_id", "decisions", ["study_id", "id"], unique=False)
    op.create_index(
        "uq_decisions_idempotency_key",
        "decisions",
        ["participant_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "policies",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("policy_id", sa.Integer(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("protocol_id", sa.BigInteger(), nullable=False),
        sa.Column("protocol_hash", sa.Text(), nullable=False),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column("feature_version", sa.Text(), nullable=False),
        sa.Column("row_seq", sa.BigInteger(), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("statistics_hash", sa.Text(), nullable=False),
        sa.Column("participants", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("mean", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("covariance", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("sigma_u", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("noise_variance", sa.Double(), nullable=False),
        sa.Column("advantage_mean", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("advantage_covariance", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("report", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["protocol_id"], ["protocols.id"], name="fk_policies_protocol_id"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_policies_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_policies"),
        sa.UniqueConstraint("study_id", "policy_id", name="uq_policies_study_id_policy_id"),
    )
    op.create_table(
        "policy_blocks",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("policy_id", sa.Integer(), nullable=False),
        sa.Column("participant_id", sa.BigInteger(), nullable=False),
        sa.Column("mean", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("covariance", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participants.id"], name="fk_policy_blocks_participant_id"
        ),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_policy_blocks_study_id"),
        sa.PrimaryKeyConstraint("study_id", "policy_id", "participant_id", name="pk_policy_blocks"),
    )
    op.create_table(
        "windows",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("participant_id", sa.BigInteger(), nullable=False),
        sa.Column("decision_index", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("code", sa.Integer(), nullable=True),
        sa.Column("query_start", sa.DateTime(timezone=True), nullable=True),
        sa.Column("query_end", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ingested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('ended', 'end_missing', 'missed')", name="ck_windows_kind"),
        sa.CheckConstraint("state IN ('ended', 'ingested', 'failed', 'missed')", name="ck_windows_state"),
        sa.ForeignKeyConstraint(["participant_id"], ["participants.id"], name="fk_windows_participant_id"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_windows_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_windows"),
        sa.UniqueConstraint(
            "participant_id", "decision_index", name="uq_windows_participant_id_decision_index"
        ),
    )
    op.create_index("ix_windows_study_id_state", "windows", ["study_id", "state"], unique=False)
    op.create_index(
        "uq_windows_idempotency_key",
        "windows",
        ["participant_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "answers",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("decision_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("item", postgresql.JSONB(), nullable=False),
        sa.Column("reward", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("source IN ('actions', 'ema')", name="ck_answers_source"),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name="fk_answers_decision_id"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_answers_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_answers"),
        sa.UniqueConstraint("decision_id", "version", name="uq_answers_decision_id_version"),
    )
    op.create_table(
        "discrepancies",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("participant_id", sa.BigInteger(), nullable=False),
        sa.Column("decision_id", sa.BigInteger(), nullable=True),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("code", sa.Integer(), nullable=False),
        sa.Column("issued", sa.Text(), nullable=False),
        sa.Column("reported", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name="fk_discrepancies_decision_id"),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participants.id"], name="fk_discrepancies_participant_id"
        ),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_discrepancies_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_discrepancies"),
        sa.UniqueConstraint(
            "participant_id",
            "decision_id",
            "field",
            "reported",
            name="uq_discrepancies_participant_id_decision_id_field_reported",
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("window_id", sa.BigInteger(), nullable=True),
        sa.Column("hyperparameters", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("requests", sa.Integer(), server_default="1", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("run_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("code", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("result", postgresql.JSONB(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name="ck_jobs_state"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_jobs_study_id"),
        sa.ForeignKeyConstraint(["window_id"], ["windows.id"], name="fk_jobs_window_id"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_study_id_state", "jobs", ["study_id", "state"], unique=False)
    op.create_index(
        "ix_jobs_unfinished",
        "jobs",
        ["state", "run_after"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index(
        "uq_jobs_queued_refit",
        "jobs",
        ["study_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'refit' AND state = 'queued'"),
    )
    op.create_index(
        "uq_jobs_running_refit",
        "jobs",
        ["study_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'refit' AND state = 'running'"),
    )
    op.create_index(
        "uq_jobs_window_id",
        "jobs",
        ["window_id"],
        unique=True,
        postgresql_where=sa.text("window_id IS NOT NULL"),
    )
    op.create_table(
        "learning_rows",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("row_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("participant_id", sa.BigInteger(), nullable=False),
        sa.Column("decision_id", sa.BigInteger(), nullable=False),
        sa.Column("decision_index", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name="fk_learning_rows_decision_id"),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participants.id"], name="fk_learning_rows_participant_id"
        ),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_learning_rows_study_id"),
        sa.PrimaryKeyConstraint("study_id", "row_seq", name="pk_learning_rows"),
    )
    op.create_index(
        "ix_learning_rows_decision_id_row_seq", "learning_rows", ["decision_id", "row_seq"], unique=False
    )


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)

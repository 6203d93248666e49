"""Parts of a fit that several workers share."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "fit_parts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("protocol_id", sa.BigInteger(), nullable=False),
        sa.Column("row_seq", sa.BigInteger(), nullable=False),
        sa.Column("policy_id", sa.Integer(), nullable=False),
        sa.Column("first_participant", sa.BigInteger(), nullable=False),
        sa.Column("last_participant", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("terms", sa.LargeBinary(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.Column("done_by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("step IN ('first', 'second')", name="ck_fit_parts_step"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_fit_parts_study_id"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_fit_parts_job_id"),
        sa.ForeignKeyConstraint(["protocol_id"], ["protocols.id"], name="fk_fit_parts_protocol_id"),
        sa.PrimaryKeyConstraint("id", name="pk_fit_parts"),
    )
    op.create_index("ix_fit_parts_job_id", "fit_parts", ["job_id"])
    # numbers do not compress: no time is lost with trying
    op.execute("ALTER TABLE fit_parts ALTER result SET STORAGE EXTERNAL, ALTER terms SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.drop_table("fit_parts")

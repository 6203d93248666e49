"""Sufficient statistics of each participant, derived from the learning rows."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("participants", sa.Column("corrections", sa.Integer(), server_default="0", nullable=False))
    op.create_index("ix_learning_rows_participant_id_row_seq", "learning_rows", ["participant_id", "row_seq"])
    op.create_table(
        "statistics",
        sa.Column("participant_id", sa.BigInteger(), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("feature_version", sa.Text(), nullable=False),
        sa.Column("row_index", sa.Integer(), nullable=False),
        sa.Column("row_seq", sa.BigInteger(), nullable=False),
        sa.Column("corrections", sa.Integer(), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("c", sa.Double(), nullable=False),
        sa.Column("packed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["participant_id"], ["participants.id"], name="fk_statistics_participant_id"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_statistics_study_id"),
        sa.PrimaryKeyConstraint("participant_id", name="pk_statistics"),
    )
    op.create_index("ix_statistics_study_id", "statistics", ["study_id"])
    # floating-point numbers do not compress: they stay in their row while it fits on a page
    op.execute("ALTER TABLE statistics SET (toast_tuple_target = 8160)")


def downgrade() -> None:
    op.drop_table("statistics")
    op.drop_index("ix_learning_rows_participant_id_row_seq", "learning_rows")
    op.drop_column("participants", "corrections")

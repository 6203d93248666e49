"""The rule that made a decision point unavailable; protocol versions that come in force at a time."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("decisions", sa.Column("unavailable_rule", sa.Text(), nullable=True))
    op.create_check_constraint(
        "ck_decisions_unavailable_by_a_rule", "decisions", "available = (unavailable_rule IS NULL)"
    )
    op.add_column(
        "protocols",
        sa.Column("looks_back_days", sa.Integer(), server_default="0", nullable=False),
    )
    op.add_column(
        "protocols",
        sa.Column(
            "effective_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
    )
    # every version until now was in force when it was stored; written so because rows cannot be updated
    op.execute("ALTER TABLE protocols ALTER COLUMN effective_at TYPE timestamptz USING created_at")


def downgrade() -> None:
    op.drop_column("protocols", "effective_at")
    op.drop_column("protocols", "looks_back_days")
    op.drop_constraint("ck_decisions_unavailable_by_a_rule", "decisions")
    op.drop_column("decisions", "unavailable_rule")

"""The night by a study's own calendar."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("studies", sa.Column("nightly_on", sa.Date(), nullable=True))


def downgrade() -> None:
    op.drop_column("studies", "nightly_on")

"""When a study was last fitted is asked at every ingest: without reading all its jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_jobs_fits", "jobs", ["study_id", "finished_at"], postgresql_where=sa.text("kind = 'refit'")
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_fits", "jobs")

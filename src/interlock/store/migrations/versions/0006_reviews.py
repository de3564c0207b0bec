"""Comments on versions under review, and news of what waits for whom."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "review_notes",
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("id", "package_digest", "kind", "author", "at", "text")
        ),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("about", "untold")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_review_notes_package_digest", "review_notes", ["package_digest"])


def downgrade() -> None:
    """Take it away again; a test starts from the state before."""
    op.drop_table("review_notes")

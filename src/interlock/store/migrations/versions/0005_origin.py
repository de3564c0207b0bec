"""From where somebody acted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; entries of before have none, and their hashes hold."""
    op.add_column("audit", sa.Column("origin", sa.Text(), nullable=True))


def downgrade() -> None:
    """Take it away again; a test starts from the state before."""
    op.drop_column("audit", "origin")

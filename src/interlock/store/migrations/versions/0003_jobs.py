"""Jobs in full: priorities, catch-up, re-runs, peak memory, validation, notification, ticks that made no run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("runs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    for name in ("origin", "validation", "untold"):
        op.add_column("runs", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("steps", sa.Column("peak_mb", sa.Float(), nullable=True))
    op.add_column("schedules", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("schedules", sa.Column("catch_up", sa.Text(), nullable=False, server_default="last"))
    op.add_column("schedules", sa.Column("seen_at", sa.Text(), nullable=False, server_default=""))
    # Schedules that are there begin to catch up now, not at their making.
    op.execute("update schedules set seen_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')")
    with op.batch_alter_table("ticks") as ticks:
        ticks.add_column(sa.Column("state", sa.Text(), nullable=False, server_default="made"))
        ticks.alter_column("run_id", existing_type=sa.Text(), nullable=True)


def downgrade() -> None:
    """Take them away again; a test starts from the state before."""
    op.execute("delete from ticks where run_id is null")
    with op.batch_alter_table("ticks") as ticks:
        ticks.alter_column("run_id", existing_type=sa.Text(), nullable=False)
        ticks.drop_column("state")
    for place in ("schedules.priority", "schedules.catch_up", "schedules.seen_at", "steps.peak_mb"):
        op.drop_column(*place.split("."))
    for name in ("priority", "origin", "validation", "untold"):
        op.drop_column("runs", name)

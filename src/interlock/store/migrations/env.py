"""Alembic's entry: runs migrations on the connection that `Database` hands over."""

from __future__ import annotations

from alembic import context

from interlock.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False, render_as_batch=True)
context.run_migrations()

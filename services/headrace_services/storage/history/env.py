"""Alembic's environment: runs the history over the connection it is given, or writes it down as SQL."""

from __future__ import annotations

from typing import Any

from alembic import context

from headrace_services.storage.schema import metadata

options: dict[str, Any] = {"target_metadata": metadata}
if context.is_offline_mode():
    context.configure(dialect_name=context.config.attributes["dialect"], literal_binds=True, **options)
else:
    context.configure(connection=context.config.attributes["connection"], render_as_batch=True, **options)
with context.begin_transaction():
    context.run_migrations()

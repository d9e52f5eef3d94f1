"""Alembic's entry: runs on the connection, and in the transaction, that farm.store.migrate hands in."""

from alembic import context

from farm.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()

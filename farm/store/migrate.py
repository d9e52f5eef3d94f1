"""Brings a database to the current schema with Alembic. Imported only when the schema is not current."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from farm.errors import FarmNotRunning
from farm.store.schema import REVISION
from farm.store.transaction import transaction

#: Any number that nothing else uses as a PostgreSQL advisory lock: two farms that start at once migrate in turn.
_LOCK = 0x6661726D


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def upgrade(engine: sa.Engine, found: str | None) -> None:
    """Run the migrations from `found` (None: an empty database) in one transaction.

    Raises FarmNotRunning for a schema that this code does not know, which is a newer farm's.
    """
    config = alembic_config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise FarmNotRunning(
            f"the database has schema {found}, which is newer than {REVISION}, the newest that this farm knows; "
            "use the newer version of the farm"
        )
    with transaction(engine, is_writing=True, is_migration=True) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

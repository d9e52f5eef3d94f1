"""The store: what is true about batches, builds, steps and attempts. Everything is one transaction or none.

Clients use the first part, the scheduler alone the second, both the third. Nothing here knows Celery or Redis.
"""

from farm.store.clients import ClientStore
from farm.store.database import open_database
from farm.store.heads import HeadStore
from farm.store.hosts import HostStore
from farm.store.logs import LogStore
from farm.store.retention import RetentionStore
from farm.store.scheduling import SchedulerStore


class Store(ClientStore, SchedulerStore, HeadStore, HostStore, LogStore, RetentionStore):
    """One database. Safe to use from several threads."""

    @classmethod
    def open(cls, url: str, *, create: bool = False) -> "Store":
        """The store at a SQLAlchemy URL; with `create` the database is made, or brought to this farm's schema.

        Raises FarmNotRunning when it is not there, does not answer or has another schema; BadSettings for a URL
        that is neither SQLite's nor PostgreSQL's.
        """
        return cls(open_database(url, create=create))

"""The store: the truth about batches, builds, steps and attempts. Each operation is one transaction.

Clients use ClientStore, only the scheduler uses SchedulerStore, both use the others. No part knows Celery or Redis.
"""

from farm.store.audit import AuditStore
from farm.store.clients import ClientStore
from farm.store.database import open_database
from farm.store.figures import FigureStore
from farm.store.heads import HeadStore
from farm.store.history import HistoryStore
from farm.store.hosts import HostStore
from farm.store.idempotency import IdempotencyStore
from farm.store.logs import LogStore
from farm.store.projects import ProjectStore
from farm.store.retention import RetentionStore
from farm.store.scheduling import SchedulerStore
from farm.store.tokens import TokenStore
from farm.store.uploads import UploadStore


class Store(
    ClientStore,
    SchedulerStore,
    HeadStore,
    HistoryStore,
    HostStore,
    LogStore,
    ProjectStore,
    RetentionStore,
    TokenStore,
    AuditStore,
    UploadStore,
    IdempotencyStore,
    FigureStore,
):
    """One database. Safe to use from several threads."""

    @classmethod
    def open(cls, url: str, *, create: bool = False) -> "Store":
        """The store at a SQLAlchemy URL; with `create` the database is made, or brought to this farm's schema.

        Raises FarmNotRunning if it does not exist, does not answer or has another schema; BadSettings for a URL that is
        neither SQLite's nor PostgreSQL's.
        """
        return cls(open_database(url, create=create))

"""The systems behind the service: database, broker, artifact store, repositories. All but the database open on first
use, since a program that only reads builds needs no other, and the import of Redis' client takes long.

Owns the message for a farm that does not answer.
"""

import logging
from functools import cached_property
from typing import TYPE_CHECKING

from farm.artifacts import open_store
from farm.artifacts.base import ArtifactStore
from farm.config import Settings
from farm.errors import BadSettings, BrokerFull, FarmNotRunning
from farm.model.worker import WorkerFacts
from farm.repositories import RepositoryBackend, open_repositories
from farm.store.store import Store

if TYPE_CHECKING:
    from farm.broker.control import Control
    from farm.broker.leases import Leases
    from farm.broker.rates import Rates

_log = logging.getLogger(__name__)


class Connections:
    """Safe to use from several threads. `close` closes the store too."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store

    @classmethod
    def open(cls, settings: Settings) -> "Connections":
        """Raises BadSettings, and FarmNotRunning when there is no farm yet or its database does not answer."""
        try:
            if not settings.database_url and not (settings.data / "farm.db").exists():
                raise FarmNotRunning(not_running(settings))
        except PermissionError as error:
            raise BadSettings(f"FARM_DATA {str(settings.data)!r} cannot be read by you; run as its owner") from error
        return cls(settings, Store.open(settings.database))

    def close(self) -> None:
        self.store.close()
        for name in ("leases", "control", "rates"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()

    @cached_property
    def leases(self) -> "Leases":
        from farm.broker.leases import Leases

        return Leases(self.settings)

    @cached_property
    def control(self) -> "Control":
        from farm.broker.control import Control

        return Control(self.settings)

    @cached_property
    def rates(self) -> "Rates":
        from farm.broker.rates import Rates

        return Rates(self.settings)

    @cached_property
    def repositories(self) -> RepositoryBackend:
        return open_repositories(self.settings)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        return open_store(self.settings)

    def ping(self) -> None:
        """Raises FarmNotRunning when the broker does not answer."""
        try:
            self.leases.ping()
        except FarmNotRunning as error:
            raise FarmNotRunning(not_running(self.settings)) from error

    def workers(self) -> tuple[WorkerFacts, ...]:
        """The workers that reported within the last 30 s, by name. Raises FarmNotRunning."""
        import redis

        try:
            return self.leases.workers()
        except redis.RedisError as error:
            raise FarmNotRunning(not_running(self.settings)) from error

    def check_room(self) -> None:
        """This comes before any write, so the message that nothing was enqueued is true.

        Raises FarmNotRunning, BrokerFull.
        """
        try:
            self.leases.check_room()
        except FarmNotRunning as error:
            raise FarmNotRunning(not_running(self.settings)) from error
        except BrokerFull as error:
            raise BrokerFull(
                f"{error}: nothing was enqueued; raise maxmemory on that Redis, or delete other data in it"
            ) from error

    def wake(self) -> None:
        """Have the scheduler look at SQL now. A broker that does not answer gets a warning."""
        try:
            self.control.wake()
        except FarmNotRunning as error:
            # The written rows are enough: the scheduler reads SQL when it starts, and every second.
            _log.warning("%s", error)


def not_running(settings: Settings) -> str:
    """The message for a farm that does not answer."""
    if settings.broker_url or settings.database_url:
        where = f"at {settings.shown()['broker_url']} with database {settings.shown()['database_url']}"
        return (
            f"the farm {where} does not answer; start its processes, or correct FARM_BROKER_URL and FARM_DATABASE_URL"
        )
    return f"the farm is not running for data directory {settings.data}; start it with `farm up`"

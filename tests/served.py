"""The HTTP server in a thread of a test, on a port of the loopback."""

import hashlib
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta

from farm.client.http import HttpClient
from farm.client.remote import RemoteFarm
from farm.config import Settings
from farm.model.actor import Actor
from farm.model.token import Token
from farm.server.connection import ConnectionBounds
from farm.server.run import address_of, listen, make_server, run
from farm.service.connections import Connections
from farm.service.service import FarmService
from farm.store.store import Store

#: The servers that run for connections of `connect_served`, by the database, with the number of connections.
_running: dict[str, tuple[ExitStack, str, int]] = {}


def token_for(store: Store, actor: Actor) -> str:
    """A token with exactly the actor's name and roles; also with none, which no command makes."""
    now, secret = datetime.now(UTC), secrets.token_urlsafe(32)
    token = Token(
        id=0,
        name="of a test",
        actor=actor.name,
        roles=tuple(sorted(actor.roles)),
        created_at=now,
        created_by="a test",
        expires_at=now + timedelta(hours=1),
        project=actor.project,
    )
    kept = store.add_token(token, sha256=hashlib.sha256(secret.encode()).hexdigest())
    return f"farm_{kept.id}_{secret}"


class ServedFarm(RemoteFarm):
    """A remote farm whose server runs in this process as long as any connection to it."""

    database = ""

    def close(self) -> None:
        super().close()
        stack, address, count = _running.pop(self.database)
        if count > 1:
            _running[self.database] = (stack, address, count - 1)
        else:
            stack.close()


def connect_served(settings: Settings, actor: Actor) -> ServedFarm:
    """Over HTTP, as this actor."""
    key = settings.database
    if key not in _running:
        stack = ExitStack()
        _running[key] = (stack, stack.enter_context(served(settings)), 0)
    stack, address, count = _running[key]
    _running[key] = (stack, address, count + 1)
    with closing(Store.open(key)) as store:
        token = token_for(store, actor)
    farm = ServedFarm(HttpClient(address, token))
    farm.database = key
    return farm


@contextmanager
def served(settings: Settings, bounds: ConnectionBounds | None = None, *, port: int = 0) -> Iterator[str]:
    """The address of a server of this farm, which runs until the end of the block."""
    service = FarmService(Connections.open(settings))
    listening = listen("127.0.0.1", port)
    server = make_server(service, bounds or ConnectionBounds())
    thread = threading.Thread(target=lambda: run(server, listening))
    thread.start()
    try:
        yield address_of(listening)
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
        service.close()
    assert not thread.is_alive()

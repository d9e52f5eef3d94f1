"""The HTTP server in a thread of a test, on a port of the loopback."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from farm.config import Settings
from farm.server.run import address_of, listen, make_server
from farm.service.connections import Connections
from farm.service.service import FarmService


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The address of a server of this farm, which runs until the end of the block."""
    service = FarmService(Connections.open(settings))
    listening = listen("127.0.0.1", 0)
    server = make_server(service)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    try:
        yield address_of(listening)
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
        service.close()
    assert not thread.is_alive()

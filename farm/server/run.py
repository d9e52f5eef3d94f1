"""Runs the server in this process, on uvicorn."""

import asyncio
import logging
import resource
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import uvicorn

from farm.config import Settings
from farm.errors import BadSettings
from farm.server.app import make_app
from farm.server.connection import BoundedConnection, ConnectionBounds
from farm.server.live import Streams
from farm.server.share import THREADS
from farm.service.connections import Connections
from farm.service.service import FarmService

#: Running requests have so long to end after SIGTERM.
_GRACE_S = 10
_BACKLOG = 128
_OTHER_FILES = 512
_BOUNDS = ConnectionBounds()
_log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any free one. Raises BadSettings."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, proto)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(_BACKLOG)
        except BaseException:
            made.close()
            raise
        return made
    except (OSError, OverflowError) as error:
        raise BadSettings(f"{host}:{port} cannot be listened on: {error}; choose another address") from error


def address_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(settings: Settings, listening: socket.socket, *, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; requests that run then are finished. Raises what `Connections.open` raises."""
    service = FarmService(Connections.open(settings))
    _allow_connections(_BOUNDS.connections_max)
    try:
        server = make_server(service)
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn has its own, and raises the signal again at its end
            signal.signal(number, lambda *_: None)
        say(address_of(listening))
        _log.info("serving on %s", address_of(listening), extra={"action": "serve"})
        run(server, listening)
    finally:
        service.close()


def _allow_connections(count: int) -> None:
    """Raise this process's limit of open files to what so many connections take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(count + _OTHER_FILES, hard) if hard != resource.RLIM_INFINITY else count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run(server: uvicorn.Server, listening: socket.socket) -> None:
    """Run it until it is told to exit."""

    async def run_with_threads() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "request"))
        await server.serve(sockets=[listening])

    asyncio.run(run_with_threads())


class _Server(uvicorn.Server):
    """Ends the answers that stay open before it waits for requests to end: their clients ask again, here or at another
    server."""

    def __init__(self, config: uvicorn.Config, live: Streams) -> None:
        super().__init__(config)
        self._live = live

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._live.close()
        await super().shutdown(sockets)


def make_server(service: FarmService, bounds: ConnectionBounds = _BOUNDS) -> uvicorn.Server:
    """A server without an access log: its lines would have what requests ask for."""
    proxies, live = service.settings.proxies, Streams(service)
    connection: Any = partial(BoundedConnection, bounds=bounds)
    config = uvicorn.Config(
        make_app(service, live),
        http=connection,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_GRACE_S,
    )
    return _Server(config, live)

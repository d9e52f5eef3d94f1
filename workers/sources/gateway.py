"""The only network of git and its helpers: a SOCKS server in this process, in a network namespace of its own.

Git's own settings (`http.proxy`, GIT_PROXY_COMMAND, ssh's ProxyCommand) point to the server. If a repository, a
redirect or an LFS answer gets around them, its network namespace has only this server. The EgressPolicy makes each
connection. If this process may not make a namespace, only the settings protect the host, and the log says so.
"""

import contextlib
import ctypes
import fcntl
import os
import secrets
import selectors
import shlex
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workers.sources.egress import Closed, EgressPolicy, is_servers_fault
from workers.sources.growth import Growth
from workers.sources.through import _exactly

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_CHUNK_BYTES = 2**16
_IDLE_S = 600.0
_HELLO_S = 20.0
_AT_ONCE = 64
_HTTP_PORT = 80
_COMMAND = shlex.join([sys.executable, "-I", str(Path(__file__).with_name("through.py"))])
_DONE, _FAILED, _NOT_ALLOWED = 0, 4, 2


class Gateway:
    """A context manager for one step; `folder` is the step's own. `refused` has a sentence for each address to which it
    did not connect, and `failed` pairs of host and error. `is_servers_fault` tells whose fault the last error is. All
    are since `forget` was called. `growth` counts what came through it into the mirrors."""

    def __init__(self, egress: EgressPolicy, folder: Path) -> None:
        self.egress = egress
        self.growth = Growth()
        self.refused: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self.is_servers_fault = False
        self._credential = secrets.token_hex(16)
        self._cleanup = contextlib.ExitStack()
        self._namespace: int | None = None
        self._closing = threading.Event()
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._port = 0
        self._wrapper = folder / "git-proxy"

    @property
    def is_sealed(self) -> bool:
        """Whether git has no other network."""
        return self._namespace is not None

    def __enter__(self) -> "Gateway":
        try:
            # Git starts this setting as one program, without further arguments.
            self._wrapper.write_text(f'#!/bin/sh\nexec {_COMMAND} "$@"\n')
            self._wrapper.chmod(0o700)
            listener = self._listen()
            self._port = listener.getsockname()[1]
            self._cleanup.callback(listener.close)
            thread = threading.Thread(target=self._serve, args=(listener,), name="gateway", daemon=True)
            self._cleanup.callback(thread.join)
            self._cleanup.callback(self._close, listener)
            thread.start()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def forget(self) -> None:
        self.refused.clear()
        self.failed.clear()
        self.is_servers_fault = False

    @property
    def prefix(self) -> tuple[str, ...]:
        """The beginning of a command line whose command has only this network."""
        if self._namespace is None:
            return ()
        return ("nsenter", f"--net=/proc/{os.getpid()}/fd/{self._namespace}", "--")

    @property
    def settings(self) -> dict[str, str]:
        """Git's configuration by key. It must not be on the command line, since it has the credential."""
        return {"http.proxy": f"socks5h://farm:{self._credential}@127.0.0.1:{self._port}"}

    @property
    def environment(self) -> dict[str, str]:
        return {"FARM_GATEWAY": f"{self._port}:{self._credential}", "GIT_PROXY_COMMAND": str(self._wrapper)}

    # --- inside --------------------------------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        """Make the listening socket in the new namespace. A thread enters the namespace; the socket stays in it."""
        made: list[socket.socket] = []

        def enter() -> None:
            with suppress(OSError):
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.unshare(_CLONE_NEWNET) != 0:
                    return
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
                made.append(_listener())
                self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        thread = threading.Thread(target=enter, name="gateway-namespace")
        thread.start()
        thread.join()
        if self._namespace is not None:
            self._cleanup.callback(os.close, self._namespace)
            return made[0]
        for half in made:
            half.close()
        return _listener()

    def _serve(self, listener: socket.socket) -> None:
        while not self._closing.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if not self._slots.acquire(blocking=False):
                client.close()
                continue
            threading.Thread(target=self._one, args=(client,), name="gateway-relay", daemon=True).start()

    def _close(self, listener: socket.socket) -> None:
        self._closing.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # ends the accept that waits; to close it would not
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _one(self, client: socket.socket) -> None:
        try:
            with self._kept(client), suppress(OSError):
                client.settimeout(_HELLO_S)
                asked = self._hello(client)
                if asked is not None:
                    self._relay(client, *asked)
        finally:
            self._slots.release()

    @contextmanager
    def _kept(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _hello(self, client: socket.socket) -> tuple[str, int] | None:
        """The handshake of RFC 1928 with RFC 1929. Returns the requested host and port."""
        version, count = _exactly(client, 2)
        if version != 5 or 2 not in _exactly(client, count):
            client.sendall(b"\x05\xff")
            return None
        client.sendall(b"\x05\x02")
        _, length = _exactly(client, 2)
        user = _exactly(client, length)
        password = _exactly(client, _exactly(client, 1)[0])
        is_known = user == b"farm" and secrets.compare_digest(password, self._credential.encode())
        client.sendall(b"\x01\x00" if is_known else b"\x01\x01")
        if not is_known:
            return None
        _, command, _, kind = _exactly(client, 4)
        host = _asked_host(client, kind)
        (port,) = struct.unpack(">H", _exactly(client, 2))
        if host is None or command != 1:
            _answer(client, 7)
            return None
        return host, port

    def _relay(self, client: socket.socket, host: str, port: int) -> None:
        try:
            server = self.egress.connect(host, port, scheme="http" if port == _HTTP_PORT else "https")
        except Closed as error:
            self.refused.append(str(error))
            _answer(client, _NOT_ALLOWED)
            return
        except OSError as error:
            self.is_servers_fault = is_servers_fault(error)
            self.failed.append((host, f"{host} port {port}: {error.strerror or error}"))
            _answer(client, _FAILED)
            return
        with self._kept(server):
            _answer(client, _DONE)
            _copy(client, server, self._closing)


def _listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def _asked_host(client: socket.socket, kind: int) -> str | None:
    match kind:
        case 1:
            return socket.inet_ntop(socket.AF_INET, _exactly(client, 4))
        case 3:
            name = _exactly(client, _exactly(client, 1)[0])
            return name.decode("utf-8", "backslashreplace")
        case 4:
            return socket.inet_ntop(socket.AF_INET6, _exactly(client, 16))
        case _:
            return None


def _answer(client: socket.socket, code: int) -> None:
    client.sendall(b"\x05" + bytes([code]) + b"\x00\x01" + bytes(6))


def _copy(client: socket.socket, server: socket.socket, closing: threading.Event) -> None:
    """Copy in both directions until both have ended, or have been silent for too long."""
    other = {client: server, server: client}
    for one in other:
        one.settimeout(_IDLE_S)
    with selectors.DefaultSelector() as waiting:
        for one in other:
            waiting.register(one, selectors.EVENT_READ)
        while waiting.get_map() and not closing.is_set():
            ready = waiting.select(_IDLE_S)
            if not ready:
                return
            for key, _ in ready:
                source: socket.socket = key.fileobj  # type: ignore[assignment]
                data = source.recv(_CHUNK_BYTES)
                if data:
                    other[source].sendall(data)
                    continue
                waiting.unregister(source)
                with suppress(OSError):
                    other[source].shutdown(socket.SHUT_WR)


def proxy_command() -> str:
    """The ProxyCommand of ssh, which fills in the host and the port."""
    return f"{_COMMAND.replace('%', '%%')} %h %p"

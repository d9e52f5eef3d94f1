"""A Redis of a test's own on a unix socket: started for a block, gone after it. Used by every suite that needs one."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from plumbum import local

from farm.errors import FarmError
from farm.up.embedded import find_redis_server

_START_WITHIN_S = 10.0


@contextmanager
def redis_server(socket: Path) -> Iterator[Path]:
    """A server on `socket` that keeps nothing. Without one on this machine: skips, and fails where CI is set."""
    try:
        binary = find_redis_server()
    except FarmError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    socket.parent.mkdir(parents=True, exist_ok=True)
    log = socket.with_suffix(".log")
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no", "--dir", socket.parent]
    with log.open("wb") as output:
        process = local[binary][options].popen(stdin=None, stdout=output, stderr=output)
        try:
            _await(socket, process, log)
            yield socket
        finally:
            process.kill()  # it keeps nothing, and on SIGTERM it would take its time
            process.wait()
            socket.unlink(missing_ok=True)


def _await(socket: Path, process: object, log: Path) -> None:
    deadline = time.monotonic() + _START_WITHIN_S
    with redis.Redis(unix_socket_path=str(socket)) as client:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                code = process.poll()  # type: ignore[attr-defined]
                if code is not None or time.monotonic() > deadline:
                    pytest.fail(f"redis-server did not start (code {code}): {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.005)

"""Live logs: the followers of one log that a server holds, and the time from a line in a root to its follower."""

import asyncio
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

from farm.broker.leases import Leases
from farm.client.http import HttpClient
from farm.client.remote import RemoteFarm
from farm.model.actor import Actor, Role
from farm.model.target import Limits
from farm.server.live import OF_ONE_ACTOR
from tests.contexts import step_context
from tests.driven_farm import DrivenFarm, driven_farm
from tests.messages import work_of
from tests.served import token_for
from tests.waiting import until
from workers.agent.lease import LeaseKeeper

ROUNDS = 100
FOLLOWERS = 500
_LINES = 80
_EVERY_S = 0.1
_LABEL = "1.build.x86_64.1"
_PATH = "/api/v1/builds/1/log?step=build&arch=x86_64&attempt=1&follow=true"


def figures(data: Path) -> dict[str, object]:
    """`log_latency_ms` of one follower, p50 and p95; `live_logs`, the followers that had each line within a second, of
    FOLLOWERS, while one line came each 0.1 s; `live_logs_ms`, their latency.
    """
    data.mkdir()
    with driven_farm(data) as driven, _server(driven) as port:
        driven.farm.enqueue(git="https://example.org/hello.git", target="demo", arches=["x86_64"])
        driven.to_build(1)
        driven.start(_LABEL)
        latency = _latency_ms(driven, port)
        held, all_ms = asyncio.run(_many(driven, port))
    return {"log_latency_ms": latency, "live_logs": held, "live_logs_ms": all_ms}


@contextmanager
def _server(driven: DrivenFarm) -> Iterator[int]:
    """The port of a server that is a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    argv = [sys.executable, "-m", "farm.server", "127.0.0.1", str(port)]
    with subprocess.Popen(argv, env={"PATH": "/usr/bin:/bin", **driven.env}) as process:
        try:
            until(lambda: _answers(port), "the server")
            yield port
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5):
            return True
    except OSError:
        return False


def _latency_ms(driven: DrivenFarm, port: int) -> dict[str, float]:
    """Lines are written as tools write them, through a step's log and the worker's lease, at times without a beat."""
    token = token_for(driven.store, Actor(name="one", roles=frozenset({Role.READER})))
    folder = driven.settings.data / "step"
    folder.mkdir()
    with ExitStack() as stack:
        context = stack.enter_context(step_context(driven.settings, folder, folder / "log", limits=Limits()))
        leases = stack.enter_context(closing(Leases(driven.settings)))
        leases.offer(replace(work_of("build"), attempt=_LABEL))
        leases.claim(_LABEL, "token", "build@bench", wait_s=1)
        keeper = stack.enter_context(LeaseKeeper(leases, _LABEL, "token"))
        stack.enter_context(keeper.watch(context))
        farm = stack.enter_context(RemoteFarm(HttpClient(f"http://127.0.0.1:{port}", token)))
        context.log.write(f"{time.monotonic()}\n".encode())
        until(lambda: leases.read_log(_LABEL, 0), "the first line")
        parts = farm.log(1, "build", follow=True)
        next(parts)
        writer = threading.Thread(target=_write, args=(context.log.write,))
        writer.start()
        taken = list(_taken(parts))
        writer.join()
    return _marks(taken)


def _write(write: object) -> None:
    for number in range(ROUNDS):
        time.sleep(0.11 + 0.0137 * (number % 7))
        write(f"{time.monotonic()}\n".encode())  # type: ignore[operator]


def _taken(parts: Iterator[bytes]) -> Iterator[float]:
    count = 0
    for data in parts:
        now = time.monotonic()
        for line in data.split():
            yield now - float(line)
            count += 1
        if count >= ROUNDS:
            return


async def _many(driven: DrivenFarm, port: int) -> tuple[int, dict[str, float]]:
    _allow_files(4 * FOLLOWERS)
    tokens = [
        token_for(driven.store, Actor(name=f"reader{number}", roles=frozenset({Role.READER})))
        for number in range(FOLLOWERS // OF_ONE_ACTOR + 1)
    ]
    with closing(Leases(driven.settings)) as leases:
        offset = len(leases.read_log(_LABEL, 0))
        ready = [asyncio.Event() for _ in range(FOLLOWERS)]
        at_once = asyncio.Semaphore(20)
        followers = [
            asyncio.create_task(_follow(port, tokens[number % len(tokens)], offset, ready[number], at_once))
            for number in range(FOLLOWERS)
        ]
        await asyncio.gather(*(one.wait() for one in ready))
        for number in range(_LINES):
            line = f"{time.monotonic()} {number}\n".encode()
            await asyncio.to_thread(leases.show_log, _LABEL, offset, line)
            offset += len(line)
            await asyncio.sleep(_EVERY_S)
        taken = await asyncio.gather(*followers)
    in_time = sum(len(one) == _LINES and max(one) < 1 for one in taken)
    return in_time, _marks([each for one in taken for each in one])


async def _follow(port: int, token: str, offset: int, ready: asyncio.Event, at_once: asyncio.Semaphore) -> list[float]:
    """How long each line took."""
    async with at_once:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET {_PATH}&offset={offset} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in answer, answer
        ready.set()
    taken: list[float] = []
    while len(taken) < _LINES:
        try:
            line = await asyncio.wait_for(reader.readline(), 20)
        except TimeoutError:
            break
        words = line.split()
        if len(words) == 2:  # the others are lengths of chunks
            taken.append(time.monotonic() - float(words[0]))
        elif not line:
            break
    writer.close()
    return taken


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))


def _marks(taken_s: list[float]) -> dict[str, float]:
    marks = statistics.quantiles(taken_s, n=20)
    return {"p50": round(marks[9] * 1000, 1), "p95": round(marks[18] * 1000, 1)}

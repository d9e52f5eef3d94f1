"""A scheduler beside a sender that floods it: how many hostile documents a second it gets rid of, and how long an
honest nudge takes meanwhile."""

import statistics
import threading
import time
from pathlib import Path

import redis

from farm import queues
from farm.broker.control import Control
from farm.config import Settings
from farm.model.arch import Arch
from tests.redis_server import redis_server
from tests.scheduling import scheduling

ROUNDS = 40
_LIST = queues.control_list(queues.build_queue(Arch.AARCH64))
_BEHIND = 2000  # documents that wait at most: the sender is as fast as the scheduler
_WITHIN_S = 10.0
#: Garbage, out of range, of another role, too deep, too long.
_DOCUMENTS = (
    b"garbage",
    b'{"notice":"resume","attempt":"1.upload.1","token":"t","worker":"w"}',
    b'{"v":3,"kind":"build","attempt":"1.build.aarch64.1","started_at":"2026-01-01T00:00:00"}',
    b'{"v":3,"kind":' + b"[" * 10_000,
    b"\xff" * 1000,
)
_TOO_LONG = b"x" * 9_000_000


def figures(folder: Path) -> dict[str, object]:
    """`hostile_documents_per_s`, and how long a nudge of a client takes beside them."""
    folder.mkdir()
    settings = Settings.from_env({"FARM_DATA": str(folder), "FARM_LOG_LEVEL": "ERROR"})
    with redis_server(settings.socket), scheduling(settings):
        control = Control(settings)
        done, sent = threading.Event(), [0]
        flood = threading.Thread(target=_flood, args=(settings, done, sent))
        flood.start()
        try:
            began = time.monotonic()
            waits_ms = [_wait_ms(settings, control) for _ in range(ROUNDS)]
            took_s = time.monotonic() - began
        finally:
            done.set()
            flood.join()
            control.close()
    return {
        "hostile_documents_per_s": round(sent[0] / took_s),
        "hostile_latency_ms": {
            "p50": round(statistics.median(waits_ms)),
            "p95": round(statistics.quantiles(waits_ms, n=20)[-1]),
        },
    }


def _flood(settings: Settings, done: threading.Event, sent: list[int]) -> None:
    with redis.Redis.from_url(settings.redis, protocol=2) as client:
        while not done.is_set():
            if int(client.llen(_LIST)) > _BEHIND:  # type: ignore[arg-type]
                time.sleep(0.002)
                continue
            # Each is another one: a document that is there twice is read once.
            client.lpush(_LIST, *(body + b"%d" % (sent[0] + n) for n in range(20) for body in _DOCUMENTS))
            sent[0] += len(_DOCUMENTS) * 20
            if sent[0] % 10_000 == 0:
                client.lpush(_LIST, _TOO_LONG)


def _wait_ms(settings: Settings, control: Control) -> float:
    """From a client's nudge until the scheduler has done what it asks for."""
    began = time.monotonic()
    control.wake()
    with redis.Redis.from_url(settings.redis, protocol=2) as client:
        lists = [queues.control_list(queues.CLIENT), queues.control_taken(queues.CLIENT)]
        while any(client.llen(name) for name in lists):
            if time.monotonic() > began + _WITHIN_S:
                raise RuntimeError(f"a nudge was not taken within {_WITHIN_S:g} s")
            time.sleep(0.001)
    return (time.monotonic() - began) * 1000

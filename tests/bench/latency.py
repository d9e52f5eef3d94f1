"""How long an idle farm takes from being asked to the first thing that `fetch` does: it asks for the source."""

import random
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from farm.client import Farm
from farm.config import Settings
from farm.model.outcome import Outcome

ROUNDS = 60
_WARM = 4
_WITHIN_S = 30.0


def start_ms(settings: Settings) -> dict[str, float]:
    """p50 and p95 for a running farm, from the call of `enqueue` to when the source's server is asked.

    The server has nothing, so each build ends at once, and the farm is idle before the next.
    """
    with Farm.connect(settings) as farm, _server() as (port, heard):
        taken_s = [_once(farm, port, number, heard) for number in range(_WARM + ROUNDS)][_WARM:]
    marks = statistics.quantiles(taken_s, n=20)
    return {"p50": round(marks[9] * 1000, 1), "p95": round(marks[18] * 1000, 1)}


def _once(farm: Farm, port: int, number: int, heard: dict[str, float]) -> float:
    path = f"/hello-{number}.src.rpm"
    time.sleep(random.uniform(0.02, 0.12))  # so that no beat of the farm's is always, or never, met
    start = time.monotonic()
    build = farm.enqueue(srpm=f"http://127.0.0.1:{port}{path}", target="demo", arches=["x86_64"])
    result = build.wait(timeout_s=_WITHIN_S)
    assert result.outcome is Outcome.FAILED, result.reason
    return heard[path] - start


@contextmanager
def _server() -> Iterator[tuple[int, dict[str, float]]]:
    """A port on loopback, and when each path was first asked for."""
    heard: dict[str, float] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.setdefault(self.path, time.monotonic())
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1], heard
        finally:
            server.shutdown()
            thread.join()

"""The siege's wiretap on the broker: keeps recent messages, so that they can be sent again."""

import ast
import random
import threading
from collections import deque
from contextlib import suppress

import redis

from farm.queues import CLIENT, control_list
from tests.siege.world import QUEUES, World

_KEPT = 40


class Wiretap(threading.Thread):
    """Listens to MONITOR; connects again when the broker was away."""

    def __init__(self, world: World) -> None:
        super().__init__(name="wiretap", daemon=True)
        self.stop = threading.Event()
        self._world = world
        roles = QUEUES.values()
        names = (*roles, *(control_list(role) for role in (CLIENT, *roles)))
        self._heard: dict[str, deque[bytes]] = {name: deque(maxlen=_KEPT) for name in names}

    def pick(self, rng: random.Random) -> tuple[str, bytes] | None:
        """A queue, and what was pushed there."""
        queues = sorted(name for name, heard in self._heard.items() if heard)
        if not queues:
            return None
        queue = rng.choice(queues)
        return queue, rng.choice(list(self._heard[queue]))

    def run(self) -> None:
        while not self.stop.is_set():
            with suppress(redis.RedisError, OSError, ValueError):
                self._listen()
            self.stop.wait(0.5)

    def _listen(self) -> None:
        with self._world.redis() as client:
            connection = client.connection_pool.get_connection()
            try:
                connection.send_command("MONITOR")
                connection.read_response()
                while not self.stop.is_set():
                    if connection.can_read(timeout=0.5):
                        self._hear(connection.read_response())
            finally:
                connection.disconnect()

    def _hear(self, line: bytes) -> None:
        """`1700000000.1 [0 10.0.0.1:5] "LPUSH" "source" "{...}"`, each word escaped as C does."""
        _, _, words = line.partition(b'] "')
        parts = words[:-1].split(b'" "', 2)
        if len(parts) == 3 and parts[0].upper() == b"LPUSH":
            queue = parts[1].decode(errors="replace")
            if queue not in self._heard or b'" "' in parts[2]:
                return  # several entries at once are the evil host's
            body = ast.literal_eval(f'b"{parts[2].decode("ascii")}"')
            if body != b"wake":
                self._heard[queue].append(body)

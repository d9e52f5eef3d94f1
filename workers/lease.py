"""Keeping one attempt's lease while its step runs, and showing its log live. Finds out when it is no longer ours."""

import logging
import threading
from pathlib import Path
from types import TracebackType

import redis

from farm.leases import LIVE_LOG_BYTES, Leases
from workers.steps.context import StepContext

_log = logging.getLogger(__name__)

#: A tenth of the lease's time would do; a second makes that a cancelled build stops within two.
_TOUCH_EVERY_S = 1.0


class LeaseKeeper:
    """Touches the lease every second from a thread; sets `stop` when it is lost.

    A broker that is away is not a lost lease: the worker goes on until the broker is back and says so.
    """

    def __init__(self, leases: Leases, attempt: str, token: str, *, every_s: float = _TOUCH_EVERY_S) -> None:
        self.stop = threading.Event()
        self._leases = leases
        self._attempt = attempt
        self._token = token
        self._every_s = every_s
        self._done = threading.Event()
        self._log: Path | None = None
        self._shown_bytes = 0
        self._thread = threading.Thread(target=self._keep, name=f"lease {attempt}", daemon=True)

    def watch(self, context: StepContext) -> None:
        """Show this context's log from now on."""
        self._log = context.log.path

    def __enter__(self) -> "LeaseKeeper":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._done.wait(self._every_s):
            try:
                if not self._leases.touch(self._attempt, self._token):
                    self.stop.set()
                    return
                self._show()
            except redis.RedisError as error:
                _log.warning(
                    "Could not renew the lease of %s: %s", self._attempt, error, extra={"action": "lease-renewal"}
                )

    def _show(self) -> None:
        if self._log is None or self._shown_bytes >= LIVE_LOG_BYTES:
            return
        try:
            with self._log.open("rb") as file:
                file.seek(self._shown_bytes)
                data = file.read(LIVE_LOG_BYTES - self._shown_bytes)
        except OSError:
            # The step has just ended, and its folder with it; or it can be shown a second later. Either way the lease
            # matters more, and it ends with this thread.
            return
        if data:
            self._leases.append_log(self._attempt, data)
            self._shown_bytes += len(data)

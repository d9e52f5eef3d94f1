"""Renews the lease of one attempt while its step runs, shows its log live, and notices when the lease is lost."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import BinaryIO

import redis

from farm.broker.leases import LIVE_LOG_BYTES, Leases, Touch
from workers.core.context import StepContext

_log = logging.getLogger(__name__)

#: The longest delay of a renewal.
_LOOK_EVERY_S = 1.0
#: The interval at which a log that grows is shown to people who follow it. To see that one does not grow costs no
#: question to Redis.
_SHOW_EVERY_S = 0.05
_PAUSE_S = 0.5  # while the broker does not answer


class LeaseKeeper:
    """Renews the lease from a thread; sets `stop` when it is lost, at once when another process ended it.

    The lease is not lost while the broker is down, or after the broker lost its data: the worker goes on and asks for
    the lease back until the broker answers that it is lost.
    """

    def __init__(
        self, leases: Leases, attempt: str, token: str, *, worker: str = "", every_s: float | None = None
    ) -> None:
        self.stop = threading.Event()
        self._leases = leases
        self._attempt = attempt
        self._token = token
        self._worker = worker
        self._every_s = leases.renew_every_s if every_s is None else every_s
        self._done = threading.Event()
        self._log: BinaryIO | None = None
        self._whole_log = b""
        self._reading = threading.Lock()
        self._showing = threading.Lock()
        self._shown_bytes = 0
        self._thread = threading.Thread(target=self._run, name=f"lease {attempt}", daemon=True)

    @contextmanager
    def watch(self, context: StepContext) -> Iterator[None]:
        """Show this context's log from now on, also once its folder is removed. Afterwards the log is closed again: on
        NFS, an open file keeps its folder from being removed."""
        with suppress(OSError):
            self._log = context.log.path.open("rb", buffering=0)
        is_written = threading.Event()
        shower = threading.Thread(target=self._show_live, args=(is_written,), name="live log", daemon=True)
        shower.start()
        try:
            yield
        finally:
            is_written.set()
            with self._reading:
                self._whole_log = self._read(0)
                if self._log is not None:
                    self._log.close()
                self._log = None

    def __enter__(self) -> "LeaseKeeper":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The thread ends by itself within a second. Its last actions are harmless, so the next step does not wait for
        # it.
        self._done.set()

    def _run(self) -> None:
        self._keep()
        if self.stop.is_set():
            # This attempt gets no report, so only the part of its log that was shown is kept.
            self._done.wait()
            with suppress(redis.RedisError), self._showing:
                self._show()

    def _keep(self) -> None:
        touch_at = time.monotonic() + self._every_s
        while not self._done.is_set():
            try:
                is_woken = self._leases.wait(self._attempt, timeout_s=min(_LOOK_EVERY_S, self._every_s))
                if self._done.is_set():
                    return
                if is_woken or time.monotonic() >= touch_at:
                    touch_at = time.monotonic() + self._touch()
                    if self.stop.is_set():
                        return
                with self._showing:
                    self._show()
            except Exception as error:
                # Any error, not Redis's alone: the attempt lives only as long as this thread.
                if self._done.is_set():
                    return
                extra = {"action": "lease-renewal", "attempt": self._attempt}
                _log.warning("Could not renew the lease of %s: %s", self._attempt, error, extra=extra)
                touch_at = 0.0
                self._done.wait(_PAUSE_S)

    def _touch(self) -> float:
        """Renew the lease. Returns the seconds until the next renewal."""
        match self._leases.touch(self._attempt, self._token):
            case Touch.HELD:
                return self._every_s
            case Touch.GONE:
                self.stop.set()
                return 0.0
            case Touch.MISSING:
                extra = {"action": "lease-missing", "attempt": self._attempt}
                _log.warning("The lease of %s is missing; asking to go on", self._attempt, extra=extra)
                self._leases.ask_back(self._attempt, self._token, self._worker)
                with self._showing:
                    self._shown_bytes = 0  # a broker that lost the lease has lost the log too
                return _LOOK_EVERY_S

    def _show_live(self, is_written: threading.Event) -> None:
        """Show the log soon after it has grown. `_keep` shows it too, and reports an error of Redis."""
        pause_s = _SHOW_EVERY_S
        while not (is_written.wait(pause_s) or self._done.is_set() or self.stop.is_set()):
            try:
                with self._showing:
                    self._show()
                pause_s = _SHOW_EVERY_S
            except redis.RedisError:
                pause_s = _LOOK_EVERY_S

    def _show(self) -> None:
        if self._shown_bytes >= LIVE_LOG_BYTES:
            return
        with self._reading:
            data = self._read(self._shown_bytes)
        if not data:
            return
        try:
            self._leases.show_log(self._attempt, self._shown_bytes, data)
            self._shown_bytes += len(data)
        except redis.OutOfMemoryError:
            return  # shown once Redis has memory again; the lease is renewed meanwhile

    def _read(self, offset: int) -> bytes:
        """The next part of the log to show; empty if the disk cannot be read, since the lease matters more."""
        if self._log is None:
            return self._whole_log[offset:]
        with suppress(OSError):
            return os.pread(self._log.fileno(), LIVE_LOG_BYTES - offset, offset)
        return b""

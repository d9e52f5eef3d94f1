"""How often clients may ask: requests of an account, builds that it enqueues, and wrong tokens from an address."""

import asyncio
import hashlib
import threading
import time
from collections import Counter, OrderedDict

from farm.errors import TooManyRequests
from farm.service.service import FarmService

_REQUESTS_WINDOW_S = 5
_ENQUEUES_WINDOW_S = 60
_LOGINS_WINDOW_S = 60
_REFUSALS_WINDOW_S = 60
#: Each refusal of a change leaves a record in the audit log, and an answer if the request has a key.
_REFUSALS_MAX = 300
#: After so many wrong tokens from an address in a minute, each answer comes later than the one before; after more, no
#: token from there is looked up that was not valid a moment ago.
_FREE, _MOST = 5, 60
_LATER_S, _LATEST_S = 0.2, 5.0
#: Answers that are held back at once, from an address and in all: each holds a connection.
_HELD_OF_ONE, _HELD_MAX = 10, 100
_KNOWN_MAX, _KNOWN_S = 1000, 600.0


class RateLimits:
    """Safe to use from several threads; methods raise TooManyRequests with the time of the next try."""

    def __init__(self, service: FarmService) -> None:
        self._service = service
        self._requests = service.settings.rate_requests
        self._enqueues = service.settings.rate_enqueues
        self._known: OrderedDict[str, float] = OrderedDict()
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    def request(self, who: str) -> None:
        """Count a request of this account."""
        if not self._requests:
            return
        before, left_s = self._service.count_rate("request", who, 1, window_s=_REQUESTS_WINDOW_S)
        if before >= self._requests * _REQUESTS_WINDOW_S:
            raise _too_many(f"{who} sends more than {self._requests} requests a second; send fewer", left_s)

    def enqueue(self, who: str, builds: int) -> None:
        """Count builds that this account enqueues. A batch is let in whole as long as the limit is not reached."""
        if not self._enqueues:
            return
        before, left_s = self._service.count_rate("enqueue", who, builds, window_s=_ENQUEUES_WINDOW_S)
        if before >= self._enqueues:
            raise _too_many(f"{who} enqueues more than {self._enqueues} builds a minute; wait, or ask for more", left_s)

    def refusals(self, who: str, new: int = 0) -> None:
        """Count requests for a change that were refused; with 0, check that there were not too many."""
        before, left_s = self._service.count_rate("refusal", who, new, window_s=_REFUSALS_WINDOW_S)
        if not new and before >= _REFUSALS_MAX:
            raise _too_many(f"{before} requests of {who} were refused within a minute; correct them", left_s)

    def login(self, address: str, secret: str) -> None:
        """Check, before a token is looked up, that not too many wrong ones came from this address."""
        before, left_s = self._service.count_rate("login", address, 0, window_s=_LOGINS_WINDOW_S)
        if before >= _MOST and not self._is_known(secret):
            raise _too_many(f"{before} wrong tokens came from {address} within a minute; try later", left_s)

    def note_login(self, secret: str) -> None:
        """Remember that the token is valid."""
        with self._lock:
            self._known[_digest(secret)] = time.monotonic()
            self._known.move_to_end(_digest(secret))
            while len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)

    async def failed_login(self, address: str) -> None:
        """Count a wrong token, and hold the answer back. Raises TooManyRequests when many are held back already."""
        before, left_s = await asyncio.to_thread(
            self._service.count_rate, "login", address, 1, window_s=_LOGINS_WINDOW_S
        )
        if not (later_s := delay_s(before)):
            return
        if self._held[address] >= _HELD_OF_ONE or self._held.total() >= _HELD_MAX:
            raise _too_many(f"too many wrong tokens come at once from {address}, or from all; try later", left_s)
        self._held[address] += 1
        try:
            await asyncio.sleep(later_s)
        finally:
            self._held[address] -= 1
            self._held += Counter()  # leaves out zeros

    def _is_known(self, secret: str) -> bool:
        with self._lock:
            return time.monotonic() - self._known.get(_digest(secret), -_KNOWN_S) < _KNOWN_S


def delay_s(before: int) -> float:
    """How long the answer to a wrong token is held back after so many others."""
    return min(_LATEST_S, max(0, before - _FREE) * _LATER_S)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _too_many(words: str, left_s: float) -> TooManyRequests:
    error = TooManyRequests(words)
    error.retry_after_s = left_s
    return error

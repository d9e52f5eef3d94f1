"""Stops a worker when the broker's ACL denies it a command: the worker logs this once and ends with an exit code.

A denial does not go away by itself: a worker that keeps trying would stay registered and take no messages, or take
messages that it cannot claim.
"""

import logging
import mmap
import os
from collections.abc import Iterator

from celery.worker import state
from redis.exceptions import NoPermissionError, ResponseError

from farm.broker.roles import account_of
from farm.config import Settings

_log = logging.getLogger(__name__)

#: The worker's exit code: EX_NOPERM of sysexits.h.
EXIT_CODE = 77
_BYTES = 2048
_DENIED_IN_A_SCRIPT = ("The user executing the script", "ACL failure in script")  # Redis 7.0; 7.2 and newer
#: The text of the first denial in a process of the pool. Made before the fork, so it is shared with these processes.
_met = mmap.mmap(-1, _BYTES)


class Denied(Exception):
    """A process of the pool was denied a command."""


def stop_for(error: Exception) -> bool:
    """If the error is a denial, log it once and stop this worker's main process; running steps are finished first."""
    denial = next((one for one in _chain(error) if isinstance(one, Denied) or _is_denial(one)), None)
    if denial is None:
        return False
    if state.should_stop != EXIT_CODE:
        state.should_stop = EXIT_CODE
        account = account_of(Settings.from_env().broker) or "default"
        _log.critical(
            "The broker's ACL denies account %r a worker's command: %s. This worker stops. `farm keys acl` prints the"
            " rules for each role; load them, or give this worker the account of its queue in FARM_BROKER_URL",
            account,
            denial,
            extra={"action": "denied"},
        )
    return True


def note(error: BaseException) -> None:
    """In a process of the pool: if the error is a denial, tell the main process to stop."""
    for one in _chain(error):
        if _is_denial(one):
            text = str(one).encode()[: _BYTES - 1]
            _met[: len(text) + 1] = text + b"\0"
            _log.error("Denied by the broker's ACL: %s", one, extra={"action": "denied", "pid": os.getpid()})
            return


def raise_noted() -> None:
    """In the main process: raises Denied when a process of the pool noted a denial."""
    if text := bytes(_met[:_BYTES]).partition(b"\0")[0]:
        raise Denied(text.decode(errors="replace"))


def _is_denial(error: BaseException) -> bool:
    """For a denied command inside a script, Redis answers with another error than for a single command."""
    return isinstance(error, NoPermissionError) or (
        isinstance(error, ResponseError) and str(error).startswith(_DENIED_IN_A_SCRIPT)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and the errors that it was raised from."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__

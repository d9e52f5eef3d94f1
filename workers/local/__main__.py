"""`python -m workers.local FD`: carries out one request of the command line, which descriptor FD has.

The command line becomes this process, so that signals and exit codes need no relay. It started with no farm: no
broker, no database.
"""

import os
import signal
import sys
import threading
import time
from importlib import import_module
from types import FrameType

import msgspec

from farm.config import Settings
from farm.errors import FarmError, LeaseLost
from farm.model.local import ShellRequest, TrialRequest
from workers.core.users import own_rights

_REQUEST_BYTES = 16 * 2**20
_SIGNALLED = 128  # the shell's exit code for a signal is its number above this


def main() -> int:
    descriptor = int(sys.argv[1])
    with os.fdopen(descriptor, "rb") as file:
        kind, _, text = file.read(_REQUEST_BYTES).partition(b"\n")
    stop = threading.Event()
    got = _stopped_by(stop)
    try:
        code = _carry_out(kind, text, stop)
    except LeaseLost:
        sys.stderr.write("interrupted: everything that ran was ended, and its files are removed\n")
        code = _SIGNALLED + (got[0] if got else signal.SIGINT)
    except FarmError as error:
        from workers.local.show import say

        say(f"error: {error}")
        code = error.exit_code
    return code


def _carry_out(kind: bytes, text: bytes, stop: threading.Event) -> int:
    from farm.permissions import close_data

    settings = Settings.from_env()
    for line in close_data(settings):
        sys.stderr.write(f"{line}\n")
    if kind == b"shell":
        from workers.local.shell import shell

        return shell(msgspec.json.decode(text, type=ShellRequest), settings, stop)
    start = time.monotonic()
    from workers.local.tree import source_of

    threading.Thread(target=_load_steps, daemon=True).start()
    request = msgspec.json.decode(text, type=TrialRequest)
    with source_of(request, stop) as (source, who):
        from workers.local.trial import trial

        return trial(request, source, who, settings, stop, start=start)


def _load_steps() -> None:
    """Load the steps' modules while git reads the work tree: in portions, since git's files are read with the rights of
    their owner, who may not be able to read these modules."""
    for name in ("roots.session", "sources.tree", "steps.registry", "formats.registry", "local.trial"):
        with own_rights():
            import_module(f"workers.{name}")


def _stopped_by(stop: threading.Event) -> list[int]:
    """Let signals stop the step that runs: it ends its processes and removes its files. The answer gets the first."""
    got: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        got.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handle)
    return got


if __name__ == "__main__":
    sys.exit(main())

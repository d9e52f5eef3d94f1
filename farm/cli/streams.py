"""The standard streams of a command that was started with some of them closed, full or broken."""

import os
import sys
from typing import TextIO

_MODES = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def open_closed() -> None:
    """Open /dev/null as each standard stream that is closed, as after `>&-`.

    Otherwise Python has None in its place, and the next file or socket that is opened gets its number, so that the
    output of some library would go into a database or to a server.
    """
    for number, name, mode in _MODES:
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115


def discard(stream: TextIO) -> None:
    """Write the rest of the stream to /dev/null. Otherwise Python reports its error again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

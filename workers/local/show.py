"""Shows steps and their logs on standard output as they come: escaped on a terminal, the raw bytes in a pipe."""

import codecs
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farm.model.text import printable
from workers.core.context import StepContext

_LOOK_EVERY_S = 0.03
_PIECE_BYTES = 2**18


def say(text: str) -> None:
    """Print a remark to standard error."""
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def tell(text: str) -> None:
    """Print a line of the answer."""
    sys.stdout.write(f"{printable(text)}\n")
    sys.stdout.flush()


@contextmanager
def followed(context: StepContext) -> Iterator[None]:
    """Show the log of a step while it runs, to its end."""
    over = threading.Event()
    thread = threading.Thread(target=_follow, args=(context.log.path, over), name="log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _follow(path: Path, over: threading.Event) -> None:
    is_terminal = sys.stdout.isatty()
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    with path.open("rb") as file:
        is_last = False
        while True:
            while data := file.read(_PIECE_BYTES):
                if is_terminal:
                    text = decoder.decode(data).replace("\r\n", "\n")
                    sys.stdout.write(printable(text, keep="\n\t"))
                else:
                    sys.stdout.buffer.write(data)
                sys.stdout.flush()
            if is_last:
                return
            is_last = over.wait(_LOOK_EVERY_S)

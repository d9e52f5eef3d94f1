"""The progress of an upload on standard error: a line that changes on a terminal, one line elsewhere."""

import sys
from functools import cache

from farm.cli.text import clean
from farm.model.amounts import size


def show_upload(name: str, done: int, of: int) -> None:
    """Show that the server has `done` of the bytes."""
    shown = clean(name)
    if not sys.stderr.isatty():
        _say_once(shown, of)
        return
    end = "\n" if done == of else ""
    sys.stderr.write(f"\ruploading {shown}: {size(done)} of {size(of)} ({100 * done // max(of, 1)}%)\x1b[K{end}")
    sys.stderr.flush()


@cache
def _say_once(name: str, of: int) -> None:
    sys.stderr.write(f"uploading {name} ({size(of)})\n")

"""How the operating system's errors become the farm's where files are kept."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from farm.errors import DiskFull, Trouble

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_errors(trouble: type[Trouble], doing: str) -> Iterator[None]:
    """An OSError inside becomes DiskFull, or `trouble`, with a message that begins with `doing`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(f"{doing}: {error.strerror}; free some space on that file system") from error
        raise trouble(f"{doing}: {error}") from error

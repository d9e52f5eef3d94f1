"""The server's own key, from which the keys of sessions and forms are made. Servers of one farm share it as a file."""

import hmac
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from farm.config import Settings
from farm.errors import BadSettings

FILE = "server.key"
_BYTES = 32


def server_key(settings: Settings) -> bytes:
    """From `server.key` in the data folder, which is made at the first call. Raises BadSettings."""
    path = settings.data / FILE
    try:
        with suppress(FileNotFoundError):
            return _read(path)
        _make(path)
        return _read(path)
    except OSError as error:
        raise BadSettings(
            f"{str(path)!r}, the key of the server's sessions: {error.strerror}; run as its owner"
        ) from error


def key_for(key: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose, from which the key cannot be found."""
    return hmac.digest(key, purpose.encode(), "sha256")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        found = file.read(_BYTES + 1)
    if mode & 0o077:
        raise BadSettings(f"{str(path)!r} has mode {mode:04o}, so that others can read it; delete it, or chmod 600 it")
    if len(found) != _BYTES:
        raise BadSettings(f"{str(path)!r} does not have {_BYTES} bytes; delete it, and all people log in again")
    return found


def _make(path: Path) -> None:
    """Whole or not at all, also when two servers make it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{FILE}.{secrets.token_hex(8)}")
    try:
        with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123
            file.write(secrets.token_bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(made)
    finally:
        made.unlink(missing_ok=True)

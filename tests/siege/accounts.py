"""The broker's accounts in a siege: which Redis can have them, and the ACL file that `farm keys acl` prints."""

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from farm.up.embedded import find_redis_server
from tests.siege.commands import CommandFailed, run

ADMIN = "siege-admin"
_FIRST_VERSION = 7  # earlier ones have no selectors
_SERVERS = ("/usr/bin/redis-server", "/usr/bin/valkey-server")
_MAIN = "from farm.cli.main import main; main()"


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """`server` is the Redis to start. Without passwords there are no accounts, and every connection may do anything."""

    server: str
    file: Path
    passwords: dict[str, str] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, str]:
        """The server's."""
        return {"aclfile": str(self.file), "acllog-max-len": "1000"} if self.passwords else {}

    def user(self, account: str) -> str:
        """The part of a URL before the host."""
        return f"{account}:{self.passwords[account]}@" if self.passwords else ""


def make_accounts(folder: Path) -> Accounts:
    """One for each role, and ADMIN, where this machine has a Redis 7. Raises CommandFailed."""
    server, passwords = _server(), folder / "passwords"
    if server is None:
        return Accounts(server=find_redis_server(), file=folder / "none")
    acl = folder / "farm.acl"
    argv = [sys.executable, "-c", _MAIN, "keys", "acl", "--passwords", str(passwords), "--admin", ADMIN]
    printed = run(*argv)
    # The command also says that it made the passwords.
    acl.write_text("".join(f"{line}\n" for line in printed.splitlines() if line.startswith("user ")))
    found = dict(line.split() for line in passwords.read_text().splitlines())
    return Accounts(server=server, file=acl, passwords=found)


def _server() -> str | None:
    for path in _SERVERS:
        if shutil.which(path) is None:
            continue
        try:
            said = run(path, "--version")
            if int(said.partition("v=")[2].partition(".")[0]) >= _FIRST_VERSION:
                return path
        except (CommandFailed, ValueError):
            continue
    return None

"""Finds mock on this host: its program and version, an account that may run it, and a way to cut the network.

Changes nothing and installs nothing.
"""

import grp
import os
import pwd
import re
import shutil
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from farm.errors import HostUnfit
from workers.core.run import CommandFailed, capture

OLDEST_VERSION = (2, 4)  # the first in which --rootdir works beside a bootstrap root
_VERSION_TIMEOUT_S = 30.0
_VERSION_BYTES = 4096
_GROUP = "mock"
_OFFLINE_SCRIPT = Path(__file__).with_name("offline.sh")


class Isolation(StrEnum):
    """The way in which mock enters the root. Only with NSPAWN can mock itself cut the network of a build."""

    NSPAWN = "nspawn"
    SIMPLE = "simple"


@dataclass(frozen=True, kw_only=True)
class Account:
    """The account that runs mock: not root, and a member of group mock, since mock requires both."""

    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class MockHost:
    """A mock that can be used here. `account` is None if this process itself may run mock."""

    program: Path
    version: str
    account: Account | None
    can_nspawn: bool

    def isolation(self, wanted: str) -> Isolation:
        """The isolation for a target's setting on this host; mock's own "auto" would choose silently.

        Raises HostUnfit for nspawn without systemd, and for simple if the network cannot be cut.
        """
        if wanted not in ("auto", *Isolation):
            raise HostUnfit(f"mock isolation {wanted!r} is not auto, nspawn or simple; correct the target's [mock]")
        if wanted == "auto":
            isolation = Isolation.NSPAWN if self.can_nspawn else Isolation.SIMPLE
        else:
            isolation = Isolation(wanted)
        if isolation is Isolation.NSPAWN and not self.can_nspawn:
            raise HostUnfit(
                "mock isolation nspawn needs systemd as process 1 and systemd-nspawn; use a host that has both"
            )
        if isolation is Isolation.SIMPLE and not is_root():
            raise HostUnfit(
                "mock isolation simple gives builds the network, and only root can cut it; run the worker as root, or "
                "use isolation nspawn"
            )
        return isolation

    def prefix(self, *, offline: bool) -> tuple[str, ...]:
        """The words before mock's own command line: the account and, for `offline`, a new network namespace.

        bubblewrap could do both, but it forbids new privileges, and mock is started through a setuid wrapper.
        """
        network = ("unshare", "--net", "--", "sh", str(_OFFLINE_SCRIPT)) if offline else ()
        if self.account is None:
            return network
        identity = ("setpriv", f"--reuid={self.account.uid}", f"--regid={self.account.gid}", "--init-groups", "--")
        return (*network, *identity)


def find_host(account: Account | None = None) -> MockHost:
    """The mock of this host. `account` replaces the search for one. Raises HostUnfit, with the package to install."""
    program = shutil.which("mock")
    if program is None:
        raise HostUnfit("mock is not installed on this host; run deploy/bootstrap, or use a target with engine native")
    return MockHost(
        program=Path(program),
        version=_version(Path(program)),
        account=account or _find_account(),
        can_nspawn=_is_systemd_first() and shutil.which("systemd-nspawn") is not None,
    )


def require_way(account: Account | None, folder: Path) -> None:
    """Raises HostUnfit for a folder that mock's account cannot reach; the message names the folder that is closed."""
    if account is None:
        return
    for above in reversed((folder, *folder.parents)):
        # A missing folder is made later, and open to others.
        if above.is_dir() and not above.stat().st_mode & stat.S_IXOTH:
            raise HostUnfit(
                f"mock's account cannot get to {folder}, since {above} keeps others out; run: chmod o+x {above}"
            )


def is_root() -> bool:
    return os.geteuid() == 0


def _version(program: Path) -> str:
    try:
        said = capture([program, "--version"], cwd=Path("/"), timeout_s=_VERSION_TIMEOUT_S, limit_bytes=_VERSION_BYTES)
    except CommandFailed as error:
        raise HostUnfit(f"mock --version does not work on this host: {error}") from error
    found = re.search(rb"([0-9]+)\.([0-9]+)(?:\.[0-9]+)*", said)
    if not found or (int(found[1]), int(found[2])) < OLDEST_VERSION:
        oldest = ".".join(str(part) for part in OLDEST_VERSION)
        raise HostUnfit(f"mock {said[:40]!r} on this host is older than {oldest}; update it")
    return found[0].decode()


def _find_account() -> Account | None:
    """The first member of group mock, by name, that is not root, so that all workers of a host use the same."""
    try:
        group = grp.getgrnam(_GROUP)
    except KeyError as error:
        raise HostUnfit("there is no group mock on this host; install mock from its package") from error
    if not is_root():
        if group.gr_gid in (os.getgid(), *os.getgroups()):
            return None
        raise HostUnfit("this worker's user is not in group mock; run: usermod -a -G mock <user>")
    for name in sorted(group.gr_mem):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        if user.pw_uid != 0:
            return Account(uid=user.pw_uid, gid=group.gr_gid)
    raise HostUnfit(
        "mock refuses to run as root, and group mock has no other member; run: useradd -r -m -G mock farm-mock"
    )


def _is_systemd_first() -> bool:
    try:
        return Path("/proc/1/comm").read_text().strip() == "systemd"
    except OSError:
        return False

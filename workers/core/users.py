"""Acting with the rights of another user of the machine, such as the person who called a tool as root."""

import os
import pwd
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

#: Held while the process has the rights of another user, and by a thread that needs the process's own.
_RIGHTS = threading.RLock()


@dataclass(frozen=True, kw_only=True)
class User:
    """A user by number; a machine need not know its name."""

    uid: int
    gid: int
    name: str | None
    home: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """The beginning of a command line that has this user's rights; empty if the process has only those."""
        if self.uid == os.geteuid():
            return ()
        groups = "--init-groups" if self.name is not None else "--clear-groups"
        drop = ("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--")
        return ("setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", groups, *drop)


def user(uid: int, gid: int) -> User:
    """The user of that number; `gid` counts if the machine does not know the user."""
    with suppress(KeyError):
        found = pwd.getpwuid(uid)
        return User(uid=uid, gid=found.pw_gid, name=found.pw_name, home=found.pw_dir)
    return User(uid=uid, gid=gid, name=None, home="/nonexistent")


@contextmanager
def acting_as(who: User) -> Iterator[None]:
    """Open, make and remove files with the user's rights, so that no link of theirs leads root anywhere.

    The whole process changes: another thread that uses files meanwhile does it with `own_rights`.
    """
    with _RIGHTS:
        if who.uid == os.geteuid():
            yield
            return
        groups, gid, uid = os.getgroups(), os.getegid(), os.geteuid()
        try:
            os.setgroups(os.getgrouplist(who.name, who.gid) if who.name is not None else [who.gid])
            os.setegid(who.gid)
            os.seteuid(who.uid)
            yield
        finally:
            os.seteuid(uid)
            os.setegid(gid)
            os.setgroups(groups)


@contextmanager
def own_rights() -> Iterator[None]:
    """The process keeps its own rights meanwhile; waits until it has them."""
    with _RIGHTS:
        yield

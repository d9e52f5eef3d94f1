"""The system call filter of a sandbox, as a program for the kernel, made by libseccomp.

The filter allows everything except calls that no build needs and calls that no namespace confines: keys, the kernel's
tracing and programming interfaces, sockets of families that a network namespace does not cover, input into a terminal,
and, unless the target allows them, user namespaces.
"""

import errno
import os
from pathlib import Path

import pyseccomp

from farm.errors import HostUnfit

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_NETLINK_ROUTE = 0
_CLONE_NEWUSER = 0x10000000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # the same on all arches of the farm
_WORD = 0xFFFFFFFF  # the kernel reads only the lower half of an argument of type int

#: Programs work without these: they get "not implemented", as from an older kernel.
_ABSENT = (
    "add_key", "bpf", "fanotify_init", "io_setup", "io_uring_enter", "io_uring_register", "io_uring_setup", "kcmp",
    "keyctl", "kexec_file_load", "kexec_load", "memfd_secret", "open_by_handle_at", "perf_event_open", "quotactl",
    "request_key", "userfaultfd", "vmsplice",
)  # fmt: skip
# A filter cannot follow the pointers of these calls, and so cannot see the family or namespace that a program wants.
_OPAQUE = ("clone3", "socketcall")
#: The arches beside the native one whose programs run on the same kernel.
_COMPAT = {"x86_64": ("x86", "x32"), "aarch64": ("arm",), "ppc64le": ()}


def write_filter(path: Path, machine: str, *, user_namespaces: bool) -> None:
    """Write the filter to `path`. Raises HostUnfit if libseccomp makes no filter for this machine."""
    try:
        rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        for compat in _COMPAT.get(machine, ()):
            rules.add_arch(getattr(pyseccomp.Arch, compat.upper()))
        _fill(rules, user_namespaces=user_namespaces)
        with path.open("wb") as file:
            rules.export_bpf(file)
            os.fsync(file.fileno())
    except (OSError, RuntimeError, AttributeError) as error:
        raise HostUnfit(f"libseccomp makes no system call filter for {machine}: {error}") from error


def _fill(rules: "pyseccomp.SyscallFilter", *, user_namespaces: bool) -> None:
    absent = pyseccomp.ERRNO(errno.ENOSYS)
    for name in _ABSENT:
        rules.add_rule(absent, name)
    for name in _OPAQUE if not user_namespaces else ("socketcall",):
        rules.add_rule(absent, name)
    _allow_families(rules, pyseccomp.ERRNO(errno.EAFNOSUPPORT))
    refused = pyseccomp.ERRNO(errno.EPERM)
    for request in (_TIOCSTI, _TIOCLINUX):
        rules.add_rule(refused, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, _WORD, request))
    if not user_namespaces:
        for name in ("clone", "unshare"):
            rules.add_rule(refused, name, pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_NEWUSER, _CLONE_NEWUSER))


def _allow_families(rules: "pyseccomp.SyscallFilter", refused: object) -> None:
    """Refuse all families but the allowed ones. The filter allows each call without a rule, so each other family gets a
    rule up to the largest allowed one, and one rule refuses all greater numbers. Arguments are compared in all 64 bits;
    an argument with bits in its upper half is greater."""
    allowed = (_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK)
    for name in ("socket", "socketpair"):
        rules.add_rule(refused, name, pyseccomp.Arg(0, pyseccomp.GT, max(allowed)))
        for family in range(max(allowed)):
            if family not in allowed:
                rules.add_rule(refused, name, pyseccomp.Arg(0, pyseccomp.EQ, family))
        rules.add_rule(
            refused,
            name,
            pyseccomp.Arg(0, pyseccomp.EQ, _AF_NETLINK),
            pyseccomp.Arg(2, pyseccomp.NE, _NETLINK_ROUTE),
        )

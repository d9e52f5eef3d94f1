"""The command lines that lead into a sandbox: private mounts, cgroups, overlay, bubblewrap. Lists of words only.

Two views: a *room*, which is the root and nothing of the host, and the *workshop*, which is the host's tools, read
only, and the one root that they fill.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.errors import HostUnfit
from farm.model.target import Limits

#: The build user's number, inside and outside: one that distributions and systemd leave alone.
BUILD_UID = 60990
_BLOCK_BYTES = 512
SCRIPTS = Path(__file__).parent
_ENTER = SCRIPTS / "enter.sh"
# The mark tells a build that failed from a sandbox that never came up; the build user cannot take it away.
_BEGIN = ': > /run/farm/entered && exec setpriv --reuid={uid} --regid={uid} --clear-groups --inh-caps=-all -- "$@"'
# What rpm and packages' scriptlets need to lay out a root, and no more.
_FILL_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_SETFCAP", "CAP_SETGID",
    "CAP_SETUID", "CAP_SYS_CHROOT",
)  # fmt: skip
_HOST_ETC = (
    "alternatives", "ca-certificates", "crypto-policies", "dnf/plugins", "gai.conf", "host.conf", "hosts",
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "nsswitch.conf", "resolv.conf", "rpm",
    # Certificates and public keys only: their folders hold the host's private keys as well.
    "pki/ca-trust/extracted", "pki/rpm-gpg", "pki/tls/cert.pem", "pki/tls/certs", "ssl/certs", "ssl/openssl.cnf",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """`lowers` from the top down. `upper` and `work` are empty folders of one file system."""

    lowers: tuple[Path, ...]
    upper: Path
    work: Path

    @property
    def options(self) -> str:
        """Raises HostUnfit for a path that the mount option cannot spell."""
        for path in (*self.lowers, self.upper, self.work):
            if any(char in str(path) for char in ',:\\"\n'):
                raise HostUnfit(
                    f"overlayfs cannot use {str(path)!r}; set FARM_DATA to a path without , : \\ and quotes"
                )
        lowers = ":".join(str(path) for path in self.lowers)
        return f"lowerdir={lowers},upperdir={self.upper},workdir={self.work}"


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A host path that the sandbox sees at `inside`."""

    path: Path
    inside: str
    is_writable: bool = False

    @property
    def words(self) -> tuple[str, str, str]:
        return ("--bind" if self.is_writable else "--ro-bind", str(self.path), self.inside)


def enter(
    command: Sequence[str], *, overlay: Overlay | None, merged: Path, joins: Sequence[Path], limits: Limits
) -> list[str]:
    """The whole command line; `joins` are the cgroups' files, without which resource limits stand in."""
    blocks = str(max(1, limits.disk_bytes // _BLOCK_BYTES))
    fallback: list[str] = []
    if not joins:
        fallback = ["prlimit", f"--nproc={limits.processes}", f"--as={limits.memory_bytes}", "--"]
    return [
        *(("unshare", "--mount", "--propagation", "private", "--") if overlay else ()),
        *("sh", str(_ENTER), blocks, overlay.options if overlay else "", str(merged)),
        *(str(path) for path in joins),
        "--",
        *fallback,
        *command,
    ]


def room(command: Sequence[str], *, root: Bind, binds: Sequence[Bind]) -> list[str]:
    """Run a command as the build user with `root` as its whole world: no network, no host path, no capability.

    Becoming the build user takes the root's own setpriv (util-linux), since a host's program needs a host's libraries.
    """
    return [
        *("bwrap", *root.words, "--proc", "/proc", "--dev", "/dev"),
        *(word for bind in binds for word in bind.words),
        *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"),
        *("--hostname", "farm", "--die-with-parent", "--chdir", "/builddir"),
        *("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--"),
        *("sh", "-c", _BEGIN.format(uid=BUILD_UID), "begin", *command),
    ]


def workshop(command: Sequence[str], *, root: Path, binds: Sequence[Bind], has_network: bool) -> list[str]:
    """Run a tool of the host on `root`, which it sees at /mnt/root; of the host it sees tools and certificates."""
    words = ["bwrap", "--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib64", "lib32", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    for name in _HOST_ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run", "--tmpfs", "/var"]  # noqa: S108
    words += ["--dir", "/var/tmp", "--bind", str(root), "/mnt/root"]  # noqa: S108
    # Scriptlets look for /dev/null and /proc/self.
    words += ["--proc", "/mnt/root/proc", "--dev", "/mnt/root/dev"]
    words += [word for bind in binds for word in bind.words]
    words += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "farm"]
    words += [] if has_network else ["--unshare-net"]
    words += ["--die-with-parent", "--chdir", "/", "--cap-drop", "ALL"]
    words += [word for name in _FILL_CAPABILITIES for word in ("--cap-add", name)]
    return [*words, "--", *command]

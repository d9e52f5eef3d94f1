"""The command lines that lead into a sandbox: the helper that prepares it on the host, then bubblewrap. Runs nothing.

There are three sandboxes: `recipe` shows a root and nothing of the host, `host_tool` shows the host's tools, read-only,
and the root that they fill, and `reader` shows the host's tools and the files that they read. In a command line, a
`Path` is a path of the host that has to be shown in the sandbox; `enter` replaces it by the name under which the helper
shows it.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from farm.model.target import Limits

#: The build user's uid inside a root: one that distributions and systemd leave alone.
BUILD_UID = 60990
#: The number of ids of a root; its uid 0 is the first of them.
ID_COUNT = 65536
# After the ids of roots come the ids that own their user namespaces, as in enter.c, and then those of build users.
_OWNER_COUNT = 65536
_BUILD_USER_COUNT = 65536
_BLOCK_BYTES = 512
# Both are the same in enter.c.
_STAGE = "/mnt"
_FILTER_FD = "9"
_SHM = f"{_STAGE}/shm"
_PTS = f"{_STAGE}/pts"
#: Pseudo-terminals of one command at a time. The kernel has some 3,000 for all sandboxes of a host together.
_PTYS = 128
_HELPER_INSIDE = "/run/farm/enter"
#: The helper makes this file, and the build user cannot remove it. If it is missing, the sandbox did not come up, and
#: the build has not failed.
_MARK_INSIDE = "/run/farm/entered"
#: The folders that the sandbox of a recipe mounts over the root's. bubblewrap follows links, so with a link in place of
#: one of them it would put the helper somewhere else, and run a program of a package as the helper.
RESERVED_FOLDERS = ("/run/farm", "/builddir", "/proc", "/sys", "/dev", "/tmp", "/var/tmp")  # noqa: S108
#: The parts of the host's /sys that a recipe sees: the processors, the memory nodes and the sizes of pages, which
#: /proc/cpuinfo and /proc/meminfo mostly tell as well. The rest has names and serial numbers of the host's devices.
_SYS_SHOWN = ("devices/system/cpu", "devices/system/node", "kernel/mm/hugepages", "kernel/mm/transparent_hugepage")
#: Folders that programs list, and that are empty here; and the parents of the parts, which bubblewrap would make for
#: root alone.
_SYS_FOLDERS = (
    "block", "bus", "class/net", "dev/block", "dev/char", "devices/system", "devices/virtual", "firmware", "fs/cgroup",
    "kernel/mm", "module",
)  # fmt: skip
# The capabilities that rpm and packages' scriptlets need to install into a root. They cannot make device nodes: a build
# root has those that bubblewrap makes.
_FILL_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETUID",
    "CAP_SYS_CHROOT",
)  # fmt: skip
# CAP_SETPCAP lets the helper empty the bounding set.
_RECIPE_CAPABILITIES = ("CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID")
_HOST_ETC = (
    "alternatives", "ca-certificates", "crypto-policies", "dnf/plugins", "gai.conf", "host.conf", "hosts",
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "nsswitch.conf", "resolv.conf", "rpm",
    # Certificates and public keys only: their folders hold the host's private keys as well.
    "pki/ca-trust/extracted", "pki/rpm-gpg", "pki/tls/cert.pem", "pki/tls/certs", "ssl/certs", "ssl/openssl.cnf",
)  # fmt: skip

#: A word of a command line, or a path of the host that is shown in the sandbox.
Word = str | Path


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """The confinement of a root session on this host.

    `first_id` is the host's id of uid 0 inside; None if uid 0 inside is the host's, which a setting has to allow.
    `helper` and `filter` are files: the compiled enter.c, and the system call filter, if there is one. `build_user_id`
    is the host's id of the build user of one session; None if no recipe runs, and without a user namespace.
    """

    helper: Path
    filter: Path | None
    first_id: int | None
    build_user_id: int | None = None

    @property
    def root_id(self) -> int:
        """The host's id of a root's uid 0, which has to own the files that the root may change."""
        return self.first_id or 0

    @property
    def build_id(self) -> int:
        """The host's id of the build user."""
        return self.root_id + BUILD_UID if self.build_user_id is None else self.build_user_id

    def for_session(self) -> "Confinement":
        """The same with an id for the build user of a new session, since the kernel counts descriptors in flight and
        the buffers of pipes by the host's id of a user.

        The id is random: workers of one host may not share a folder or a pid namespace in which they could agree. Two
        sessions with the same id can disturb each other, but nothing worse.
        """
        return (
            self
            if self.first_id is None
            else replace(self, build_user_id=secrets.choice(build_user_ids(self.first_id)))
        )


def build_user_ids(first_id: int) -> range:
    """The host's ids for build users."""
    start = first_id + ID_COUNT + _OWNER_COUNT
    return range(start, start + _BUILD_USER_COUNT)


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """`lowers` from the top down. `upper` and `work` are empty folders in one folder of the host."""

    lowers: tuple[Path, ...]
    upper: Path
    work: Path


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A host path that the sandbox sees at `inside`."""

    path: Path
    inside: str
    is_writable: bool = False

    @property
    def words(self) -> tuple[Word, ...]:
        return ("--bind" if self.is_writable else "--ro-bind", self.path, self.inside)


def enter(
    command: Sequence[Word],
    confinement: Confinement,
    *,
    overlays: Sequence[tuple[Overlay, Path]] = (),
    joins: Sequence[Path],
    limits: Limits,
    has_shm: bool = False,
) -> list[str]:
    """The whole command line. `joins` are the cgroups' files; without them resource limits are set instead. Each
    overlay is shown wherever the command has the path that it is paired with; the path need not exist. A `recipe` needs
    `has_shm`."""
    stage = _Stage()
    options = [word for path in joins for word in ("--cgroup", str(path))]
    options += ["--fsize", str(max(1, limits.disk_bytes // _BLOCK_BYTES) * _BLOCK_BYTES)]
    if _PTS in command:
        options += ["--ptys", str(_PTYS)]
    if not joins:
        options += ["--nproc", str(limits.processes), "--as", str(limits.memory_bytes)]
    if has_shm:
        options += ["--shm", str(limits.memory_bytes)]
    if confinement.first_id is not None:
        options += ["--map", str(confinement.first_id), str(ID_COUNT)]
    if confinement.build_user_id is not None:
        options += ["--user", str(BUILD_UID), str(confinement.build_user_id)]
    if confinement.filter is not None:
        options += ["--seccomp", str(confinement.filter)]
    for index, (overlay, merged) in enumerate(overlays):
        stage.names[merged] = f"{_STAGE}/overlay{index}"
        options += ["--overlay", _overlay_options(overlay, stage, has_map=confinement.first_id is not None)]
    words = [stage.show(word) if isinstance(word, Path) else word for word in command]
    options += [word for path in stage.binds for word in ("--bind", str(path))]
    return [str(confinement.helper), "outside", *options, "--", *words]


class _Stage:
    """The names under which the helper shows paths of the host."""

    def __init__(self) -> None:
        self.binds: list[Path] = []
        self.names: dict[Path, str] = {}

    def show(self, path: Path) -> str:
        if path not in self.names:
            self.names[path] = f"{_STAGE}/{len(self.binds)}"
            self.binds.append(path)
        return self.names[path]


def _overlay_options(overlay: Overlay, stage: _Stage, *, has_map: bool) -> str:
    """The kernel wants `upperdir` and `workdir` on one mount, so their common folder is shown as a whole. Inside a user
    namespace overlayfs keeps its marks in attributes that a namespace's root may write."""
    lowers = ":".join(stage.show(path) for path in overlay.lowers)
    if overlay.upper.parent != overlay.work.parent:
        raise ValueError(f"{overlay.upper} and {overlay.work} are not in one folder")
    changes = stage.show(overlay.upper.parent)
    options = f"lowerdir={lowers},upperdir={changes}/{overlay.upper.name},workdir={changes}/{overlay.work.name}"
    return f"{options},userxattr" if has_map else options


def recipe(
    command: Sequence[str],
    confinement: Confinement,
    *,
    root: Bind,
    binds: Sequence[Bind],
    has_network: bool = False,
) -> list[Word]:
    """Run a command as the build user in `root`, without network, paths of the host or capabilities. With
    `has_network`, which a step never has, it sees the network of the process that starts it.

    One of the binds shows a folder at /run/farm, in which the helper is. The helper becomes the build user before any
    program of the root runs.
    """
    helper = Bind(path=confinement.helper, inside=_HELPER_INSIDE)
    return [
        *("bwrap", *root.words, "--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", *_dev("/dev")),
        *("--bind", _SHM, "/dev/shm", *_sys()),  # noqa: S108 - the session's own
        *(word for bind in (*binds, helper) for word in bind.words),
        *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *(() if has_network else ("--unshare-net",)),
        *("--hostname", "farm", "--die-with-parent", "--chdir", "/builddir"),
        *_capabilities(_RECIPE_CAPABILITIES),
        *_filter(confinement),
        *("--", _HELPER_INSIDE, "inside", str(BUILD_UID), _MARK_INSIDE, "--", *command),
    ]


def host_tool(
    command: Sequence[str], confinement: Confinement, *, root: Path, binds: Sequence[Bind], has_network: bool
) -> list[Word]:
    """Run a tool of the host on `root`, which is at /mnt/root; of the host the tool sees programs and certificates."""
    words: list[Word] = ["bwrap", *_host_programs()]
    for name in _HOST_ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    words += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", *_dev("/dev")]
    words += ["--tmpfs", "/tmp", "--tmpfs", "/run", "--tmpfs", "/var", "--dir", "/var/tmp"]  # noqa: S108
    words += ["--bind", root, "/mnt/root"]
    # Scriptlets look for /dev/null and /proc/self.
    words += ["--proc", "/mnt/root/proc", "--ro-bind", "/proc/sys", "/mnt/root/proc/sys", *_dev("/mnt/root/dev")]
    words += [word for bind in binds for word in bind.words]
    words += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "farm"]
    words += [] if has_network else ["--unshare-net"]
    words += ["--die-with-parent", "--chdir", "/"]
    words += [*_capabilities(_FILL_CAPABILITIES), *_filter(confinement)]
    return [*words, "--", *command]


def reader(command: Sequence[str], confinement: Confinement, *, binds: Sequence[Bind]) -> list[Word]:
    """Run a program of the host that reads hostile files: read-only, without network or capabilities. It sees the
    host's programs and the binds alone."""
    words: list[Word] = ["bwrap", *_host_programs(), "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    words += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", *_dev("/dev"), "--tmpfs", "/tmp"]  # noqa: S108
    words += [word for bind in binds for word in bind.words]
    words += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"]
    words += ["--die-with-parent", "--chdir", "/", "--cap-drop", "ALL", *_filter(confinement)]
    return [*words, "--", *command]


def _host_programs() -> list[Word]:
    words: list[Word] = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib64", "lib32", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    return words


def _dev(place: str) -> list[str]:
    """A /dev with the few devices of a sandbox. bubblewrap sets no limit on its pseudo-terminals, so the helper's are
    mounted over them."""
    return ["--dev", place, "--dev-bind", _PTS, f"{place}/pts"]


def _sys() -> list[str]:
    """A read-only /sys with a few parts of the host's. A tmpfs is below them, since a root may lack the folders."""
    words = ["--tmpfs", "/sys"]
    words += [word for name in _SYS_FOLDERS for word in ("--dir", f"/sys/{name}")]
    words += [word for name in _SYS_SHOWN for word in ("--ro-bind-try", f"/sys/{name}", f"/sys/{name}")]
    return [*words, "--remount-ro", "/sys"]


def _capabilities(kept: Sequence[str]) -> list[str]:
    return ["--cap-drop", "ALL", *(word for name in kept for word in ("--cap-add", name))]


def _filter(confinement: Confinement) -> list[str]:
    return ["--seccomp", _FILTER_FD] if confinement.filter is not None else []

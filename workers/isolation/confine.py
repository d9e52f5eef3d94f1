"""The confinement of root sessions on this host: compiles the helper, makes the filters, and tests that both work.

The helper and the filters are made once for each version of their sources, and kept in FARM_DATA.
"""

import functools
import hashlib
import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from farm.config import Settings
from farm.errors import FarmError, HostUnfit
from farm.model.target import EngineName, Limits, Target
from workers.core.run import CommandFailed, capture
from workers.isolation import sandbox
from workers.isolation.sandbox import ID_COUNT, Confinement, Overlay, build_user_ids

_SOURCE = Path(__file__).parent / "enter.c"
_SYSCALLS = Path(__file__).parent / "syscalls.py"
_COMPILE_S = 60.0
_TRY_S = 20.0
_SAID_BYTES = 4096
_RECALL = timedelta(hours=1)  # how long a later process relies on the trial of another one
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
#: An entry of FARM_UNCONFINED that stands for every target.
_ALL = "*"
_lock = threading.Lock()


def confinement(settings: Settings, target: Target) -> Confinement:
    """The confinement of a target's root sessions on this host.

    Raises HostUnfit, naming the setting, if uid 0 inside would be the host's uid 0 and no setting allows that for this
    target: on a host that cannot make user namespaces, and for an engine that does not use them.
    """
    if target.engine is EngineName.MOCK:
        _require_allowed(settings, target, "mock runs as the host's root, without a user namespace")
        return host_confinement(settings)
    helper = _helper(settings.data)
    filters = _filter(settings.data, target.user_namespaces)
    confined = Confinement(helper=helper, filter=filters, first_id=settings.first_root_id)
    if problem := _problem(settings.data, confined, may_recall=True):
        _require_allowed(settings, target, problem)
        return Confinement(helper=helper, filter=filters, first_id=None)
    return confined


def host_confinement(settings: Settings) -> Confinement:
    """The confinement of a tool that makes its own sandbox as the host's root: groups and limits alone."""
    return Confinement(helper=_helper(settings.data), filter=None, first_id=None)


def reader_confinement(settings: Settings) -> Confinement:
    """The confinement of one of the farm's own programs that reads hostile files. If a setting allows a host without
    user namespaces to build, the program runs without one as well. Raises HostUnfit."""
    helper, filters = _helper(settings.data), _filter(settings.data, False)
    confined = Confinement(helper=helper, filter=filters, first_id=settings.first_root_id)
    problem = _problem(settings.data, confined, may_recall=True)
    if problem is None:
        return confined
    if not settings.unconfined_targets:
        raise HostUnfit(f"{problem}; packages are not read with the host's root")
    return Confinement(helper=helper, filter=filters, first_id=None)


def host_problem(settings: Settings) -> str | None:
    """The reason why this host cannot run root sessions in user namespaces; None if it can, or if a setting allows to
    run without them."""
    if settings.unconfined_targets:
        return None
    try:
        helper, filters = _helper(settings.data), _filter(settings.data, False)
    except FarmError as error:
        return str(error)
    return _problem(settings.data, Confinement(helper=helper, filter=filters, first_id=settings.first_root_id))


def _require_allowed(settings: Settings, target: Target, problem: str) -> None:
    allowed = settings.unconfined_targets
    if target.name not in allowed and _ALL not in allowed:
        raise HostUnfit(
            f"{problem}; packages of {target.name} could reach this host as its root. If all of them are trusted, name "
            f"the target in FARM_UNCONFINED on this host"
        )


def _helper(data: Path) -> Path:
    name = f"enter-{platform.machine()}-{_digest(_SOURCE)}"

    def make(path: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise HostUnfit("there is no C compiler for the sandbox's helper; run deploy/bootstrap, or install gcc")
        words: list[str | Path] = [compiler, "-static", "-O2", "-o", path, _SOURCE]
        try:
            capture(words, cwd=Path("/"), timeout_s=_COMPILE_S, limit_bytes=_SAID_BYTES)
        except CommandFailed as error:
            message = f"the sandbox's helper does not compile ({error}); is the C library's static part installed?"
            raise HostUnfit(message) from error
        path.chmod(0o755)

    return _kept(data, name, make)


def _filter(data: Path, user_namespaces: bool) -> Path:
    name = f"filter-{platform.machine()}-{'users' if user_namespaces else 'none'}-{_digest(_SYSCALLS)}"

    def make(path: Path) -> None:
        try:
            from workers.isolation.syscalls import write_filter
        except (ImportError, RuntimeError) as error:  # pyseccomp raises these without the library
            raise HostUnfit(f"libseccomp cannot be loaded ({error}); run deploy/bootstrap") from error
        write_filter(path, platform.machine(), user_namespaces=user_namespaces)

    return _kept(data, name, make)


def _kept(data: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The file, which is made again if it is gone from the data folder while this process runs."""
    folder = data / "sandbox"
    path = folder / name
    with _lock:
        if path.is_file():
            return path
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as new:
            make(Path(new) / name)
            (Path(new) / name).rename(path)
    return path


_worked: set[tuple[Path, Path | None, int | None]] = set()


def _problem(data: Path, confined: Confinement, *, may_recall: bool = False) -> str | None:
    """None once a sandbox has come up in this process. A failure is tested again, since it may be temporary.

    With `may_recall`, a success of another process on this host counts for a while: the trial takes a twelfth of the
    time that `farm try` needs to start. A host that changed meanwhile fails in the session itself, which is made in the
    same way and is confined or does not start.
    """
    key = (confined.helper, confined.filter, confined.first_id)
    if key in _worked or (may_recall and _is_recalled(data, confined)):
        return None
    problem = _trial_problem(data, confined)
    if problem is None:
        _worked.add(key)
        _record(data, confined).write_text(_host_state(confined))
    return problem


def _record(data: Path, confined: Confinement) -> Path:
    return data / "sandbox" / f"works-{confined.filter.name if confined.filter else 'unfiltered'}"


def _host_state(confined: Confinement) -> str:
    """The boot, the namespaces, the helper and the ids with which the trial was made."""
    namespaces = [str(Path(f"/proc/self/ns/{name}").readlink()) for name in _NAMESPACES]
    made_at = str(confined.helper.stat().st_mtime_ns)
    return "\n".join([_BOOT_ID.read_text().strip(), confined.helper.name, made_at, str(confined.first_id), *namespaces])


def _is_recalled(data: Path, confined: Confinement) -> bool:
    record = _record(data, confined)
    try:
        made_at = datetime.fromtimestamp(record.stat().st_mtime, UTC)
        is_recent = timedelta() <= datetime.now(UTC) - made_at < _RECALL
        return is_recent and record.read_text() == _host_state(confined)
    except OSError:
        return False


def _trial_problem(data: Path, confined: Confinement) -> str | None:
    if os.geteuid() != 0:
        return "only root can map the ids of a user namespace"
    if confined.first_id is not None:  # a container may not have the last ids itself
        confined = replace(confined, build_user_id=build_user_ids(confined.first_id)[-1])
    with tempfile.TemporaryDirectory(dir=data / "sandbox") as name:
        folder = Path(name)
        for part in ("lower", "upper", "work"):
            (folder / part).mkdir()
        for part in ("proc", "dev"):  # the mount points of a root
            (folder / "lower" / part).mkdir()
        for path in (folder, *folder.iterdir()):
            os.chown(path, confined.root_id, confined.root_id)
        overlay = Overlay(lowers=(folder / "lower",), upper=folder / "upper", work=folder / "work")
        merged = folder / "merged"
        words = sandbox.host_tool(["touch", "/mnt/root/made"], confined, root=merged, binds=(), has_network=False)
        argv = sandbox.enter(words, confined, overlays=[(overlay, merged)], joins=(), limits=Limits())
        try:
            capture(argv, cwd=Path("/"), timeout_s=_TRY_S, limit_bytes=_SAID_BYTES)
        except FarmError as error:
            return f"this host makes no user namespace of {ID_COUNT} ids for a root session: {error}"
        if (folder / "upper/made").stat().st_uid != confined.root_id:
            return "files that a root session makes do not belong to its own ids"
    return None


@functools.cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]

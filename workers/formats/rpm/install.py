"""Installs packages into a root with the host's dnf, in a host-tools sandbox.

Owns one installation: the work folder, the two steps (download with network and no scriptlet, install without network),
and the meaning of a failure. Does not own the package cache and its lock, which are in package_cache.py.

Scriptlets of packages that the farm built run as root in the install step, and a chroot does not confine root. So this
step has a snapshot of the cache below an overlay that is removed afterwards: no other installation sees anything that
dnf or a scriptlet writes there. The installations of a host take turns to download; they install side by side, each
from its own snapshot. The record of the root is dnf's plan, which the worker has before the first scriptlet runs;
nothing is read afterwards.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from farm.config import Settings
from farm.errors import DiskFull, FarmError, RootTrouble
from farm.formats.rpm.settings import settings_of
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from farm.model.target import Target
from workers.core.context import Ended, StepContext
from workers.core.run import Completed, Ending
from workers.core.text import shown
from workers.formats.rpm import blame, dnf, rpmbuild
from workers.formats.rpm.blame import End, host_state
from workers.formats.rpm.dnf import DnfRepository
from workers.formats.rpm.dnf_network import DnfNetwork, dnf_network
from workers.formats.rpm.package_cache import PackageCache
from workers.formats.rpm.plan import BadPlan, Plan, PlanPipe, plan_pipe
from workers.isolation.outcomes import LimitsMet, over_kernel_memory
from workers.isolation.sandbox import BUILD_UID, Bind, Confinement, Overlay
from workers.isolation.scratch import remove_tree, scratch_name
from workers.roots.host_tools import FILL_LIMITS, FILL_TIMEOUT_S, Tool, ToolRun, own, run_tool

PREFIX = "filling"
_SAID_BYTES = 2**20
_SHOWN_CHARS = 300
_LIMITS, _TIMEOUT_S = FILL_LIMITS, FILL_TIMEOUT_S
_CACHE = "/mnt/root/var/cache/dnf"
#: The name of overlayfs's work folder, beside the upper folder.
_WORK = "overlay-work"
_PLAN_PLUGIN = "farm_plan"
_PLUGINS = (_PLAN_PLUGIN, "farm_keys")
_GIVEN = "the packages that it requires"
_PLAN_BYTES = {"packages": 16 * 2**20, "all": 48 * 2**20}
_numbers = count(1)


@dataclass(frozen=True, kw_only=True)
class _DnfRun:
    """Without `plan` dnf only downloads, into the shared cache instead of a view of it, with `network` if there is
    something on one."""

    words: tuple[str, ...]
    root: Overlay
    binds: tuple[Bind, ...]
    cache: Path
    plan: str = ""
    network: DnfNetwork | None = None

    @property
    def is_fetch(self) -> bool:
        return not self.plan


class DnfInstall:
    """Installs packages for one target and arch, for one attempt."""

    def __init__(
        self, settings: Settings, target: Target, arch: Arch, context: StepContext, confinement: Confinement
    ) -> None:
        self._settings = settings
        self._target = target
        self._arch = arch
        self._context = context
        self._confinement = confinement
        self._cache = PackageCache(settings, target.name, arch)
        self._rich: tuple[str, ...] = ()

    def install(
        self, packages: Sequence[str], repositories: Sequence[DnfRepository], *, root: Path, into: Path
    ) -> Plan:
        """Fill the empty folder `root`, with scratch files in `into`. Returns dnf's plan. Raises trouble."""

        def prepare(work: Path) -> list[str]:
            # The lower folder is empty: the overlay is used for its mount option `volatile`, which avoids syncs.
            (work / "empty").mkdir()
            return ["install", *packages]

        return self._fill(prepare, repositories, lower=None, upper=root, into=into)

    def add(
        self, wanted: Sequence[str], repositories: Sequence[DnfRepository], *, lower: Path, upper: Path, into: Path
    ) -> Plan:
        """Install packages that meet the requirements over `lower`; the difference goes to `upper`. Returns dnf's plan.

        Raises trouble; and Ended, with UNRESOLVABLE if no package provides a requirement, and with FAILED if a package
        that meets one cannot be installed.
        """

        self._rich = tuple(one for one in wanted if one.startswith("("))

        def prepare(work: Path) -> list[str]:
            try:
                spec = dnf.wanted_spec(wanted)
            except ValueError as error:
                raise Ended(Outcome.FAILED, str(error)) from error
            (work / "wanted.spec").write_text(spec)
            return ["builddep", "--spec", "/work/wanted.spec"]

        return self._fill(prepare, repositories, lower=lower, upper=upper, into=into, is_builds_own=True)

    def _fill(
        self,
        prepare: Callable[[Path], list[str]],
        repositories: Sequence[DnfRepository],
        *,
        lower: Path | None,
        upper: Path,
        into: Path,
        is_builds_own: bool = False,
    ) -> Plan:
        scratch = into / scratch_name(PREFIX, next(_numbers))
        with ExitStack() as stack:
            stack.callback(remove_tree, scratch)
            stack.callback(_remove, upper.parent / _WORK)
            work = scratch / "seen"
            for folder in (work / "home", scratch / "merged"):
                folder.mkdir(parents=True, exist_ok=True)
            words = prepare(work)
            is_remote = not all(one.is_local for one in repositories)
            network = None
            if is_remote:
                network = stack.enter_context(dnf_network(self._target, repositories, self._context, scratch))
            options = network.options if network else {}
            (work / "dnf.conf").write_text(dnf.configuration(self._target, repositories, options))
            (work / "home/.rpmmacros").write_text(dnf.host_macros(self._target))
            self._own(work, work / "home")
            binds = (Bind(path=work, inside="/work", is_writable=True), *self._local(repositories))
            lowers = (lower or work / "empty",)
            if lower is None:
                self._own(work / "empty")
            words = [*self._options(), *words]
            if lower is None or is_remote:
                # Scriptlets never have network, so packages are downloaded before, over a root that is removed. For a
                # template always: all of its layers then use the cache that dnf made of the target's metadata.
                fetched = Overlay(lowers=lowers, upper=scratch / "fetch/upper", work=scratch / "fetch/work")
                fetch = ("--downloadonly", *words) if is_remote else (*self._options(), "makecache")
                with self._cache.write(self._context.stop, self._context.deadline) as cache:
                    self._own_cache(cache)
                    step = _DnfRun(words=fetch, root=fetched, binds=binds, cache=cache, network=network)
                    self._fetch(step, scratch, is_builds_own=is_builds_own)
                    snapshot = stack.enter_context(self._cache.snapshot(cache))
                words = ["--cacheonly", *words]
            else:
                with self._cache.read(self._context.stop, self._context.deadline) as cache:
                    snapshot = stack.enter_context(self._cache.snapshot(cache))
            self._own(snapshot)
            overlay = Overlay(lowers=lowers, upper=upper, work=upper.parent / _WORK)
            named = "all" if lower is None else "packages"
            step = _DnfRun(words=tuple(words), root=overlay, binds=binds, cache=snapshot, plan=named)
            return self._install(step, scratch, is_builds_own=is_builds_own)

    def _fetch(self, step: _DnfRun, scratch: Path, *, is_builds_own: bool) -> None:
        ran = self._run_dnf(step, scratch, None)
        told = step.network.told if step.network else bytes
        self._judge(ran, scratch, is_builds_own=is_builds_own, has_begun=False, told=told)

    def _install(self, step: _DnfRun, scratch: Path, *, is_builds_own: bool) -> Plan:
        with plan_pipe(scratch / "seen/plan", limit_bytes=_PLAN_BYTES[step.plan]) as pipe:
            self._own(scratch / "seen/plan")
            ran = self._run_dnf(step, scratch, pipe)
            pipe.take()
        try:
            plan = pipe.plan()
        except BadPlan as error:
            raise _refused(str(error), is_builds_own=is_builds_own) from error
        if plan is not None and plan.refused:
            words = f"a package cannot be installed: {shown(plan.refused, limit=_SHOWN_CHARS)}"
            raise _refused(words, is_builds_own=is_builds_own)
        self._judge(ran, scratch, is_builds_own=is_builds_own, has_begun=pipe.has_begun)
        if plan is None:
            raise RootTrouble(
                f"dnf did not say what it installs; is dnf on this host version 4, with {_PLAN_PLUGIN}.py?"
            )
        return plan

    def _judge(
        self,
        ran: ToolRun,
        scratch: Path,
        *,
        is_builds_own: bool,
        has_begun: bool,
        told: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """Raises the error that the end of dnf means, if any, after `told` has put its output into words."""
        log, done = self._context.log, ran.done
        said = done.tail if log.is_cut and not has_begun else _from(log.path, ran.log_from_bytes)
        if has_begun:  # the output of a scriptlet may have pushed dnf's message out of the part that is read
            said += b"\n" + done.tail
        host = host_state((scratch, self._settings.cache), self._arch)
        end = End(code=done.code, signal=done.signal, said=told(said), host=host, has_begun=has_begun, rich=self._rich)
        if met_one := _limit_met(done, ran.met, has_begun=has_begun):
            outcome, words = met_one
            what = "installing its requirements" if is_builds_own else "making the build root"
            # The log's limit and the time are the build's own. Before scriptlets run, no code of its packages has run,
            # so another limit was met by dnf itself, which waited for a disk or a mount.
            is_own = done.ending is Ending.FLOODED or time.monotonic() >= self._context.deadline
            if is_own or (is_builds_own and has_begun):
                raise Ended(outcome, f"{what} {words}")
            raise _may_be_given(RootTrouble(f"filling the build root {words}"), is_builds_own)
        if verdict := blame.of_dnf(end):
            error = verdict.error("dnf cannot fill the build root", is_packages_own=is_builds_own)
            raise _may_be_given(error, is_builds_own and not verdict.case.is_seen)

    def _run_dnf(self, step: _DnfRun, scratch: Path, pipe: PlanPipe | None) -> ToolRun:
        cache = step.cache if step.is_fetch else scratch / "cache"
        seen = Overlay(lowers=(step.cache,), upper=scratch / "cached/upper", work=scratch / "cached/work")
        scripts = [Bind(path=rpmbuild.SCRIPTS / name, inside=f"/run/{name}") for name in ("fill.sh", "database.sh")]
        folder = rpmbuild.SCRIPTS / "dnf_plugins"
        scripts += [Bind(path=folder / f"{name}.py", inside=f"{dnf.PLUGINS}/{name}.py") for name in _PLUGINS]
        database = settings_of(self._target).rpmdb
        tool = Tool(
            argv=["sh", "/run/fill.sh", str(BUILD_UID), database, step.plan, *step.words],
            shown=["dnf", *step.words],
            root=step.root,
            binds=[Bind(path=cache, inside=_CACHE, is_writable=True), *step.binds, *scripts],
            other_overlays=[] if step.is_fetch else [(seen, cache)],
            env={"HOME": "/work/home"},
            network=step.network.prefix if step.network else None,
            is_patient=step.is_fetch,
        )
        look = pipe.take if pipe else lambda: None
        return run_tool(
            tool, self._context, self._confinement, scratch=scratch, limits=_LIMITS, timeout_s=_TIMEOUT_S, look=look
        )

    def _own(self, *paths: Path) -> None:
        own(self._confinement, *paths)

    def _own_cache(self, cache: Path) -> None:
        """Make the cache again if its files belong to other ids, from an earlier setting: it cannot be written to."""
        if cache.stat().st_uid != self._confinement.root_id and any(cache.iterdir()):
            remove_tree(cache)
            cache.mkdir()
        self._own(cache)

    def _options(self) -> list[str]:
        options = ["--config", "/work/dnf.conf", "--installroot", "/mnt/root", "--releasever", self._target.release]
        return [
            *options,
            "--forcearch",
            self._arch.rpm,
            "--color=never",
            "--disableplugin=*",
            f"--enableplugin={','.join(('builddep', *_PLUGINS))}",
        ]

    def _local(self, repositories: Sequence[DnfRepository]) -> list[Bind]:
        """Binds of local repositories and keys at their own paths; of the farm's repositories the whole folder, since
        the packages are beside the versions."""
        folders = [one.folder for one in repositories if one.folder is not None]
        own = self._settings.repositories_dir
        shown = {own if folder.is_relative_to(own) else folder for folder in folders}
        for one in repositories:
            if one.key_file is not None:
                if not one.key_file.is_file():
                    raise RootTrouble(
                        f"repository {one.name} of the target has the gpgkey {one.key_file}, which is not a file of "
                        f"this host; put the key there, or correct the target"
                    )
                shown.add(one.key_file)
        return [Bind(path=folder, inside=str(folder)) for folder in sorted(shown)]


def _may_be_given(error: FarmError, may_be: bool) -> FarmError:
    """Packages of other builds may be crafted so that dnf fails before any of their code runs. Only if another host can
    install the same packages, the trouble was this host's."""
    if may_be:
        error.remote = error.remote or _GIVEN
    return error


def _refused(words: str, *, is_builds_own: bool) -> Ended | RootTrouble:
    if is_builds_own:
        return Ended(Outcome.FAILED, f"installing its requirements failed: {words}")
    return RootTrouble(f"the build root cannot be filled: {words}")


def _limit_met(done: Completed, met: LimitsMet, *, has_begun: bool) -> tuple[Outcome, str] | None:
    """The limit that ended the installation, as an outcome and a reason; None if no limit did. Raises DiskFull if the
    host's disk is the cause, or if dnf's own files took most of a disk."""
    match done.ending:
        case Ending.TIMED_OUT:
            return Outcome.TIMED_OUT, f"did not end within {done.seconds:.0f} s"
        case Ending.STALLED:
            return Outcome.STALLED, f"wrote nothing and used no CPU for {_LIMITS.silence_s} s"
        case Ending.OVER_FILES:
            return Outcome.OVER_LIMIT, f"made more than the {_LIMITS.files} files of a root"
        case Ending.OVER_DISK:
            return Outcome.OVER_LIMIT, f"used more disk than the {_LIMITS.disk_bytes // 2**30} GiB of a root"
        case Ending.FLOODED:
            return Outcome.OVER_LIMIT, "flooded the log"
        case Ending.OVER_SOCKETS | Ending.OVER_LOCKS:
            return Outcome.OVER_LIMIT, over_kernel_memory(done.ending, _LIMITS)
        case Ending.MOST_OF_DISK | Ending.MOST_OF_FILES if has_begun:
            return Outcome.OVER_LIMIT, "used most of the disk that its host had left; build it where the disk is larger"
        case Ending.DISK_FULL | Ending.MOST_OF_DISK | Ending.MOST_OF_FILES:
            raise DiskFull("the disk of this host is nearly full while a build root is filled; free some space")
        case Ending.EXITED if met.memory_kills:
            return Outcome.OVER_LIMIT, f"used more memory than an installation's {_LIMITS.memory_bytes // 2**30} GiB"
        case Ending.EXITED if met.forks_refused:
            return Outcome.OVER_LIMIT, f"wanted more than an installation's {_LIMITS.processes} processes"
        case Ending.EXITED:
            return None


def _remove(folder: Path) -> None:
    if folder.exists():
        remove_tree(folder)


def _from(log: Path, start_bytes: int) -> bytes:
    with log.open("rb") as file:
        file.seek(start_bytes)
        return file.read(_SAID_BYTES)

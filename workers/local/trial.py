"""`farm try`: builds a work tree on this machine, in the farm's roots and by the farm's steps, without a farm."""

import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from farm.artifacts import open_store
from farm.config import Settings
from farm.errors import OUTCOME_EXIT_CODES, FarmError
from farm.model.artifact import Artifact
from farm.model.local import ShellRequest, StoredArtifact, TrialRequest
from farm.model.outcome import Outcome
from farm.model.source import Source
from farm.model.work import AnyResult, AnyWork
from farm.steps.local import LocalBuild
from farm.steps.registry import step_type
from workers.core.users import User
from workers.local.results import check_results, put_results
from workers.local.shell import shell
from workers.local.show import followed, say, tell
from workers.local.world import HostWorld
from workers.steps.runner import forget_kept, run_step


@dataclass(kw_only=True)
class _Trial:
    """One build. `failed` is the work of the last step that did not succeed."""

    request: TrialRequest
    settings: Settings
    stop: threading.Event
    found: list[StoredArtifact] = field(default_factory=list)
    failed: AnyWork | None = None

    def step(self, work: AnyWork) -> AnyResult:
        arch = work.input.arch if step_type(work.kind).is_per_arch else None
        name = f"{work.kind} {arch}" if arch else work.kind
        start = time.monotonic()
        say(f"==> {name} <==")
        try:
            watch = nullcontext if self.request.is_quiet else followed
            result = run_step(work, self.settings, stop=self.stop, watch=watch)
        except FarmError as error:
            self._add(work, arch, error.artifacts)
            raise
        self._add(work, arch, result.artifacts)
        if not result.outcome.is_success:
            self.failed = work
        reason = f": {result.reason}" if result.reason else ""
        say(f"{name} {_word(result.outcome)} in {time.monotonic() - start:.1f} s{reason}")
        return result

    def _add(self, work: AnyWork, arch: object, artifacts: tuple[Artifact, ...]) -> None:
        self.found += [StoredArtifact(kind=work.kind, arch=arch, artifact=one) for one in artifacts]  # type: ignore[arg-type]


def trial(
    request: TrialRequest, source: Source, who: User, settings: Settings, stop: threading.Event, *, start: float
) -> int:
    """Build the source, and put the results into their folder, as files of `who`. Returns the exit code, which is that
    of `farm build --wait`. `start` is when the trial began, by time.monotonic()'s clock.

    Raises the steps' trouble, and LeaseLost once `stop` is set.
    """
    results = Path(request.results)
    check_results(results, who)
    if request.has_shell and not _has_terminal():
        say("no shell will be opened: there is no terminal")
        request = replace(request, has_shell=False)
    trying = replace(settings, keep_failed=request.is_kept or request.has_shell)
    one = _Trial(request=request, settings=trying, stop=stop)
    local = LocalBuild(
        target=request.target,
        source=source,
        arches=request.arches,
        options=request.options,
        world=HostWorld(settings, request.target),
    )
    try:
        build = local.run(one.step)
    except FarmError as error:
        if error.artifacts:
            put_results(one.found, open_store(settings), results, who)
        raise
    paths = put_results(one.found, open_store(settings), results, who)
    outcome = build.outcome or Outcome.ERRORED
    tell(f"{build.package} for {build.target}: {_word(outcome)} in {time.monotonic() - start:.1f} s")
    if build.reason:
        tell(f"  reason       {build.reason}")
    for label, path in zip(["results", *[""] * len(paths)], paths, strict=False):
        tell(f"  {label:<12} {path}")
    if one.failed is not None:
        _after_failure(one)
    return OUTCOME_EXIT_CODES[outcome]


def _has_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _word(outcome: Outcome) -> str:
    return outcome.value.replace("_", " ")


def _after_failure(one: _Trial) -> None:
    """Open a shell in the root of the step that failed, if the person asked for it."""
    work = one.failed
    if work is None or not one.request.has_shell:
        return
    kind = step_type(work.kind)
    try:
        if not kind.can_reopen:
            say(f"no shell: the root of the {work.kind} step cannot be made again")
            return
        asked = ShellRequest(
            target=work.target,
            arch=work.input.arch,
            options=work.options,
            package=work.package,
            kind=work.kind,
            attempt=work.attempt,
            artifacts=tuple(one.found),
            repositories=getattr(work.input, "repositories", ()),
        )
        shell(asked, one.settings, one.stop)
    finally:
        if not one.request.is_kept:
            forget_kept(one.settings, work.attempt)

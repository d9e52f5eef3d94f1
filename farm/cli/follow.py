"""`--wait`: shows the steps of one build, live on a terminal and as plain lines elsewhere, then a summary."""

from collections.abc import Iterable, Sequence
from contextlib import closing

import typer
from rich.console import Group
from rich.live import Live

from farm.cli.session import console, say
from farm.cli.tables import build_heading, excerpt, step_table
from farm.cli.text import clean
from farm.client import Event, FarmApi
from farm.errors import OUTCOME_EXIT_CODES, FarmError
from farm.formats.base import Format, Identity
from farm.formats.registry import format_of
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import Build
from farm.model.outcome import Outcome, Status
from farm.service.summary import culprit

_INTERRUPTED = 130
_LIVE_PER_SECOND = 4
_PACKAGES_SHOWN = 20


def wait_for(farm: FarmApi, build_id: int, *, is_quiet: bool) -> Build:
    """Show the build until it has finished. Ctrl-C ends the display, and prints that the build goes on."""
    try:
        if is_quiet:
            return farm.wait(build_id)
        if console().is_terminal and not console().is_dumb_terminal:
            return _live(farm, build_id)
        return farm.wait(build_id, on_event=_print_event)
    except KeyboardInterrupt:
        say(f"build {build_id} goes on: `farm status {build_id}` shows it, `farm cancel {build_id}` ends it")
        raise typer.Exit(_INTERRUPTED) from None


def finish(build: Build) -> None:
    """Exit with the code of the outcome."""
    if build.outcome is not None:
        raise typer.Exit(OUTCOME_EXIT_CODES[build.outcome])


def is_telling(event: Event) -> bool:
    """False for a step that waits for its turn in the chain, or was just sent: it gets no plain line."""
    match event.status:
        case Status.RUNNING:
            return event.step is not None
        case Status.FINISHED:
            return True
        case Status.READY | Status.DISPATCHED:
            return False
        case Status.WAITING:
            return bool(event.waits_for) and not str(event.waits_for).startswith("waits for ")


def summary(farm: FarmApi, build: Build) -> None:
    """Print the excerpt of the log, the packages, and the next commands. The outcome was shown before."""
    out = console()
    if build.outcome is not None and build.outcome.is_success:
        _summarise_success(farm, build)
        return
    out.print()
    step, attempt = culprit(build)
    if step and attempt:
        arch = f" --arch {step.arch}" if step.arch else ""
        if attempt.excerpt:
            out.print(f"  from the log of {step.name}:")
            out.print(excerpt(attempt.excerpt))
            out.print()
        out.print(f"  log          farm log {build.id} --step {step.kind}{arch}")
    if build.outcome is not Outcome.EXCLUDED:
        out.print(f"  try again    farm retry {build.id}")


def _summarise_success(farm: FarmApi, build: Build) -> None:
    out = console()
    packages = [file.artifact for file in farm.artifacts(build) if file.artifact.kind is ArtifactKind.RPM]
    out.print()
    shown = _package_lines(build, packages)
    for label, line in zip(["packages", *[""] * len(shown)], shown, strict=False):
        out.print(f"  {label:<12} {line}")
    excluded = {step.arch: step.reason for step in build.steps if step.arch and step.outcome is Outcome.EXCLUDED}
    for arch, reason in excluded.items():
        out.print(f"  {'excluded':<12} {arch}: {clean(reason)}")
    try:
        built = next((step.arch for step in build.steps if step.arch and step.outcome is Outcome.SUCCEEDED), None)
        repository = farm.repository(build.target, built, project=build.project)
    except FarmError as error:
        say(f"warning: the repository is not shown: {clean(str(error))}")
        return
    main = clean(main_package(build.nevra, build.package, packages, format_of(repository.format)))
    out.print(f"  {'repository':<12} {repository.baseurl}", soft_wrap=True)
    gone = {_name(one.package, repository.format): one.by for one in build.replaced if built in one.arches}
    if main in gone:
        out.print(f"  {'install':<12} the repository has {main} of build {gone[main]}: farm status {gone[main]}")
    else:
        out.print(f"  {'install':<12} {repository.install_command(main)}", soft_wrap=True)


def _package_lines(build: Build, packages: Sequence[Artifact]) -> list[str]:
    """The first names of packages, each with the build that replaced it, and how many more there are."""
    by_identity = {one.package: one.by for one in build.replaced}
    by_name = {one.name: by_identity.get(one.identity or "") for one in packages}
    lines = [
        clean(name) + (f" (replaced by build {by})" if by else "")
        for name, by in sorted(by_name.items())[:_PACKAGES_SHOWN]
    ]
    if more := len(by_name) - len(lines):
        lines.append(f"… and {more} more; `farm artifacts {build.id}` lists them all")
    return lines


def main_package(source: str | None, guess: str, packages: Iterable[Artifact], form: Format) -> str:
    """The name of the package that has the name of its source, else of the first one that is no debug package. `source`
    is the identity of the source package, `guess` its name where that is not known."""
    found = [one for one in (_identity(package.identity, form) for package in packages) if one is not None]
    made_from = _identity(source, form)
    own = made_from.name if made_from is not None else guess
    useful = sorted(one.name for one in found if not one.is_debug)
    return own if own in useful or not useful else useful[0]


def _identity(text: str | None, form: Format) -> Identity | None:
    """None for a text that is no identity: a worker reported it."""
    try:
        return form.parse_identity(text or "")
    except ValueError:
        return None


def _name(identity: str, form: str) -> str:
    found = _identity(identity, format_of(form))
    return clean(found.name) if found is not None else ""


def _print_event(event: Event) -> None:
    if is_telling(event):
        console().print(clean(str(event)), soft_wrap=True)
        console().file.flush()


def _live(farm: FarmApi, build_id: int) -> Build:
    shown = farm.build(build_id)
    with (
        Live(
            get_renderable=lambda: Group(build_heading(shown), step_table(shown)),
            console=console(),
            refresh_per_second=_LIVE_PER_SECOND,
        ) as live,
        closing(farm.watch(build_id)) as snapshots,
    ):
        for build in snapshots:
            if build is not None:
                shown = build
        live.refresh()
    return shown

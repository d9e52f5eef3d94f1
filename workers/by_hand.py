"""Run one step by hand, without broker or database: `python -m workers.by_hand STEP …`.

Each step prints one JSON document on standard output, which is the next step's `--after`:

    python -m workers.by_hand fetch --git /path/to/hello --target demo > fetch.json
    python -m workers.by_hand srpm --after fetch.json > srpm.json
    python -m workers.by_hand build --after srpm.json > build.json
    python -m workers.by_hand upload --after build.json

Artifacts and build roots are in FARM_DATA. No other module of the workers reads target files: on a farm the target
comes with the work.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from farm import wire
from farm.artifacts import open_store
from farm.config import Settings
from farm.errors import OUTCOME_EXIT_CODES, BadRequest, FarmError
from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import BuildOptions
from farm.model.source import Source, SourceKind
from farm.model.work import AnyResult, AnyWork, Work
from farm.permissions import close_data
from farm.steps.base import StepType
from farm.steps.build import BUILD, BuildInput
from farm.steps.fetch import FETCH, FetchInput
from farm.steps.registry import step_type
from farm.steps.srpm import SRPM, SrpmInput
from farm.steps.upload import UPLOAD, UploadInput
from farm.targets.load import find_target
from workers.isolation.facts import host_facts
from workers.local.world import HostWorld
from workers.steps.runner import run_step

cli = typer.Typer(help=__doc__, add_completion=False, rich_markup_mode=None, no_args_is_help=True)

After = Annotated[Path, typer.Option(help="The output of the step before.", exists=True, dir_okay=False)]


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The document that a step prints: its input, its outcome, and the outputs of this and earlier steps, by name."""

    work: msgspec.Raw
    outcome: str
    reason: str | None
    excerpt: str | None
    log: str | None
    seconds: float
    outputs: dict[str, msgspec.Raw]


@cli.command()
def fetch(
    target: Annotated[str, typer.Option(help="A target's name.")],
    git: Annotated[str | None, typer.Option(metavar="URL")] = None,
    ref: Annotated[str | None, typer.Option(help="Branch, tag or commit; the remote's HEAD without it.")] = None,
    subdir: str | None = None,
    spec: str | None = None,
    srpm: Annotated[str | None, typer.Option(metavar="PATH|URL")] = None,
) -> None:
    """Bring the source of a git ref or a src.rpm into the artifact store."""
    settings = Settings.from_env()
    if (git is None) == (srpm is None):
        raise BadRequest("give exactly one of --git and --srpm")
    if git is not None:
        source = Source(kind=SourceKind.GIT, url=git, ref=ref, subdir=subdir, spec=spec, reader_uid=os.getuid())
    elif "://" in (srpm or ""):
        source = Source(kind=SourceKind.SRPM, url=srpm)
    else:
        path = Path(srpm or "").absolute()
        stored = open_store(settings).put(path, name=path.name, kind=ArtifactKind.SRPM)
        source = Source(kind=SourceKind.SRPM, sha256=stored.sha256, filename=path.name)
    found = find_target(settings, target)
    work = Work(
        attempt="0.fetch.1",
        kind=FETCH.name,
        build_id=0,
        package=source.guessed_name,
        target=found,
        options=BuildOptions(),
        limits=found.limits,
        input=FetchInput(source=source, arch=HostWorld(settings, found).root_arch(found.arches), arches=found.arches),
    )
    _do(settings, work, {})


@cli.command()
def srpm(after: After, arch: Annotated[Arch | None, typer.Option(help="This host's without it.")] = None) -> None:
    """Build the source package in a root of the target."""
    work, outputs = _read(after)
    fetched = _output(FETCH, outputs, after)
    order = SrpmInput(
        archive=fetched.archive,
        spec=fetched.spec,
        commit_at=fetched.commit_at,
        arch=arch or host_facts(Settings.from_env()).arches[0],
    )
    _do(Settings.from_env(), _next(work, SRPM, order), outputs)


@cli.command()
def build(after: After, arch: Annotated[Arch | None, typer.Option(help="This host's without it.")] = None) -> None:
    """Build the binary packages of one arch from the source package."""
    settings = Settings.from_env()
    work, outputs = _read(after)
    made = _output(SRPM, outputs, after)
    arch = arch or host_facts(settings).arches[0]
    own = HostWorld(settings, work.target).own(work.target.name, arch)
    order = BuildInput(
        srpm=made.srpm,
        identity=made.identity,
        build_requires=made.build_requires,
        requires_arch=made.arch,
        arch=arch,
        repositories=(own,) if own else (),
    )
    _do(settings, _next(work, BUILD, order), outputs)


@cli.command()
def upload(after: After) -> None:
    """Publish the packages of `build` in the repositories of the settings."""
    work, outputs = _read(after)
    made = _output(SRPM, outputs, after)
    built = _output(BUILD, outputs, after)
    if not isinstance(work.input, BuildInput):
        raise BadRequest(f"{after} is not the output of the build step; run `python -m workers.by_hand build` first")
    arches = work.target.arches if made.noarch else (work.input.arch,)
    order = UploadInput(srpm=made.srpm, rpms=built.rpms, arches=arches)
    _do(Settings.from_env(), _next(work, UPLOAD, order), outputs)


def _next(work: AnyWork, kind: StepType[Any, Any], order: object) -> AnyWork:
    return replace(work, attempt=f"0.{kind.name}.1", kind=kind.name, input=order)


def _read(after: Path) -> tuple[AnyWork, dict[str, Any]]:
    try:
        done = msgspec.json.decode(after.read_bytes(), type=Done)
        work = wire.decode_work(bytes(done.work))
    except ValueError as error:
        raise BadRequest(
            f"{after} is not the output of a step ({error}); run the step before again, into a file"
        ) from error
    if work.kind not in done.outputs:
        raise BadRequest(f"{after}: the {work.kind} step {done.outcome} ({done.reason}); the next step has no input")
    return work, dict(done.outputs)


def _output(kind: StepType[Any, Any], outputs: dict[str, Any], after: Path) -> Any:
    """The output of the step of that type. Raises BadRequest if it has not run, or its output was tampered with."""
    name = kind.name
    if name not in outputs:
        made = ", ".join(outputs)
        raise BadRequest(f"{after} has what {made} made, and not {name}; run `python -m workers.by_hand {name}` first")
    try:
        return kind.decode(bytes(outputs[name]))
    except ValueError as error:
        raise BadRequest(f"{after} is not the output of a step ({error}); run {name} again, into a file") from error


def _do(settings: Settings, work: AnyWork, outputs: dict[str, Any]) -> None:
    start = time.monotonic()
    for line in close_data(settings):
        sys.stderr.write(f"{line}\n")
    result: AnyResult = run_step(_pinned(settings, work), settings)
    if result.output is not None:
        outputs = {**outputs, work.kind: msgspec.Raw(wire.to_json(result.output))}
    log = next((artifact for artifact in result.artifacts if artifact.kind is ArtifactKind.LOG), None)
    done = Done(
        work=msgspec.Raw(wire.encode_work(work)),
        outcome=str(result.outcome),
        reason=result.reason,
        excerpt=result.excerpt,
        log=_path(log) if log else None,
        seconds=round(time.monotonic() - start, 3),
        outputs=outputs,
    )
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(done)).decode() + "\n")
    said = f"{work.kind}: {result.outcome}" + (f": {result.reason}" if result.reason else "")
    sys.stderr.write(f"{said} in {done.seconds:g} s; log: {done.log}\n")
    raise typer.Exit(OUTCOME_EXIT_CODES[result.outcome])


def _pinned(settings: Settings, work: AnyWork) -> AnyWork:
    """The work with the addresses of the farm's own repositories, which on a farm the scheduler fills in."""
    if not step_type(work.kind).runs_in_root:
        return work
    pinned: AnyWork = replace(work, target=HostWorld(settings, work.target).pinned(work.target, work.input.arch))
    return pinned


def _path(artifact: Artifact) -> str:
    # Shown to a person on the machine that has the store's directory: the path stays valid.
    with open_store(Settings.from_env()).local(artifact.sha256) as path:
        return str(path)


def main(argv: Sequence[str] | None = None) -> None:
    try:
        cli(args=list(argv) if argv is not None else None)
    except FarmError as error:
        log = "".join(f"; log: {_path(artifact)}" for artifact in error.artifacts if artifact.kind is ArtifactKind.LOG)
        sys.stderr.write(f"error: {error}{log}\n")
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main()

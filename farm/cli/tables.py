"""Values as Rich tables and lines. Text out of builds is cleaned here; nothing is asked of the farm."""

from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from farm.cli.text import STYLES, ago, clean, duration, since, size
from farm.client import StoredFile
from farm.errors import BadTarget
from farm.model.arch import Arch
from farm.model.build import Build, Step
from farm.model.outcome import Outcome, Status
from farm.model.target import Target
from farm.model.worker import WorkerFacts


def plain(*headings: str, wide: str | None = None) -> Table:
    """A table without lines. The column `wide` is cut when there is no room; the others are not."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_header=any(headings))
    for heading in headings:
        is_wide = heading == wide
        table.add_column(heading, no_wrap=True, overflow="ellipsis", min_width=None if is_wide else len(heading))
    return table


def state(status: Status, outcome: Outcome | None) -> Text:
    """The outcome of what is finished, the status of what is not, in its colour."""
    one = outcome or status
    return Text(str(one).replace("_", " "), style=STYLES[one])


def step_table(build: Build) -> Table:
    """One line a step: where it is, how long it has run, and why it waits or how it ended."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for options in ({}, {}, {}, {"justify": "right"}):
        table.add_column(no_wrap=True, **options)  # type: ignore[arg-type]  # a justify method's name
    table.add_column(overflow="fold")
    for step in build.steps:
        table.add_row(
            f"  {step.kind}",
            step.arch or "",
            state(step.status, step.outcome),
            duration(_ran_s(step)),
            _about(step),
        )
    return table


def build_heading(build: Build) -> Text:
    """`build 12  hello-2.10-1  demo  failed  3.1 s`."""
    took = duration(since(build.created_at, build.finished_at))
    return Text.assemble(
        ("build ", "dim"),
        (str(build.id), "bold"),
        "  ",
        (clean(build.nevra or build.package), "bold"),
        ("  for ", "dim"),
        clean(build.target),
        "  ",
        state(build.status, build.outcome),
        (f"  {took}", "dim"),
    )


def build_details(build: Build) -> RenderableType:
    """Who asked for what, when."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("  source", clean(build.source.shown) or "(uploaded)")
    if build.commit:
        table.add_row("  commit", clean(build.commit))
    table.add_row("  asked", f"{ago(build.created_at)} ago by {clean(build.owner)}, in batch:{build.batch_id}")
    wishes = options_words(build)
    if wishes:
        table.add_row("  options", wishes)
    return table


def options_words(build: Build) -> str:
    """The options as they would be typed."""
    words = [f"--with {name}" for name in build.options.with_]
    words += [f"--without {name}" for name in build.options.without]
    words += [f"--define '{clean(name)} {clean(value)}'" for name, value in build.options.defines]
    if build.options.timeout_s is not None:
        words.append(f"--timeout {build.options.timeout_s}")
    if build.priority:
        words.append(f"--priority {build.priority}")
    return " ".join(words)


def build_list(builds: Sequence[Build]) -> Table:
    table = plain("build", "package", "target", "state", "age", "took", "owner", "about", wide="about")
    table.columns[0].justify = "right"
    for build in builds:
        # A package's name is as long as its recipe likes; the about column is what gives way, then this one.
        table.add_row(
            str(build.id),
            clean(_short(build.nevra or build.package)),
            clean(build.target),
            state(build.status, build.outcome),
            ago(build.created_at),
            duration(since(build.created_at, build.finished_at)) if build.finished_at else "",
            clean(build.owner),
            clean(build.reason) or waiting(build),
        )
    return table


def waiting(build: Build) -> str:
    """What runs or waits, in few words; empty for a finished build."""
    if build.status is Status.FINISHED:
        return ""
    running = [step.name for step in build.steps if step.status is Status.RUNNING]
    why = [
        f"{step.name}: {clean(step.waits_for)}"
        for step in build.steps
        if step.waits_for and not step.waits_for.startswith("waits for ")
    ]
    words = ([f"{', '.join(running)} running"] if running else []) + why
    return "; ".join(words) or "waits for the scheduler"


def queue_table(slots: Mapping[str, int], counts: Mapping[str, tuple[int, int]]) -> Table:
    table = plain("queue", "slots", "busy", "ready", "")
    for column in table.columns[1:4]:
        column.justify = "right"
    for name in sorted({*slots, *counts}):
        ready, busy = counts.get(name, (0, 0))
        has = slots.get(name, 0)
        remark = Text("no worker", style="red") if not has else Text("")
        table.add_row(name, str(has), str(busy), str(ready), remark)
    return table


def worker_table(workers: Sequence[WorkerFacts]) -> Table:
    table = plain("worker", "queues", "slots", "builds for", "engines", "memory", "disk free", "up", "")
    table.columns[2].justify = "right"
    for worker in workers:
        table.add_row(
            clean(worker.name),
            clean(" ".join(worker.queues)),
            str(worker.slots),
            _arch_words(worker.arches),
            clean(" ".join(worker.engines)),
            size(worker.memory_bytes) if worker.memory_bytes else "",
            size(worker.disk_free_bytes) if worker.disk_free_bytes else "",
            ago(worker.started_at),
            Text(clean(worker.unfit), style="red"),
        )
    return table


def target_table(targets: Mapping[str, Target | BadTarget]) -> Table:
    table = plain("target", "distribution", "engine", "arches", "", wide="")
    for name, target in targets.items():
        if isinstance(target, Target):
            table.add_row(
                clean(name), clean(f"{target.distribution} {target.release}"), target.engine, _arch_words(target.arches)
            )
        else:
            table.add_row(clean(name), "", "", "", Text("not valid, see below", style="red"))
    return table


def file_table(files: Sequence[StoredFile]) -> Table:
    table = plain("step", "kind", "size", "name", wide="name")
    table.columns[2].justify = "right"
    for file in files:
        artifact = file.artifact
        table.add_row(file.step_name, artifact.kind, size(artifact.size_bytes), clean(artifact.name))
    return table


def excerpt(text: str, limit_lines: int = 20) -> Text:
    """The last lines of what stood around the reason in the log, behind a bar."""
    lines = [clean(line.expandtabs()) for line in text.splitlines()][-limit_lines:]
    return Text("\n".join(f"    │ {line}" for line in lines), style="dim", overflow="fold")


def _about(step: Step) -> Text:
    last = step.attempts[-1] if step.attempts else None
    words = clean(step.reason or step.waits_for)
    if step.status is Status.RUNNING and last and last.worker:
        words = f"on {clean(last.worker)}"
    if len(step.attempts) > 1:
        words = f"{words} (attempt {len(step.attempts)})".strip()
    is_bad = step.outcome is not None and not step.outcome.is_success
    return Text(words, style="" if is_bad else "dim")


def _ran_s(step: Step) -> float | None:
    last = step.attempts[-1] if step.attempts else None
    if last is None or last.started_at is None:
        return None
    return since(last.started_at, last.finished_at)


def _arch_words(arches: Sequence[Arch]) -> str:
    return " ".join(arches)


def _short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"

"""Values as Rich tables and lines. This module escapes text of builds. It does not query the farm."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from farm.cli.text import STYLES, clean
from farm.errors import BadTarget
from farm.model.amounts import ago, duration, since, size
from farm.model.audit import DONE, AuditRecord
from farm.model.build import Build, Step
from farm.model.outcome import Outcome, Status
from farm.model.place import place_of
from farm.model.project import Project, ProjectPackage
from farm.model.target import Target
from farm.model.token import Token
from farm.model.worker import HoldKind, HostHold, WorkerFacts
from farm.repositories import RepositoryCheck, RepositoryVersion
from farm.service.files import StoredFile
from farm.service.hosts import idle_reason
from farm.service.limits import differing_limits, limit_text, limit_words
from farm.service.summary import ran_s, waiting
from farm.service.watch import seconds

#: The width of a terminal from which on tables show their less important columns.
ROOMY = 100
_PACKAGE_CHARS = 30
_REPLACED_SHOWN = 5
_LEAST_CHARS = 8
_GAP = "  "  # between columns
_RIGHT = ("build", "version", "packages", "slots", "busy", "ready", "size")


def plain(headings: Sequence[str], rows: Sequence[Sequence[str | Text]], width: int) -> Text:
    """A table without lines, of at most `width` columns; the last column is cut to fit.

    Rich's own tables take several times longer, which is half the time of `farm status`.
    """
    cells = [[Text(heading, style="dim") for heading in headings]]
    cells += [[cell.copy() if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    needs = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)][:-1]
    room = max(_LEAST_CHARS, width - sum(needs) - len(_GAP) * len(needs))
    for row in cells:
        row[-1].truncate(room, overflow="ellipsis")
    lines = (_line(row, [*needs, 0], [heading in _RIGHT for heading in headings]) for row in cells)
    table = Text("\n", no_wrap=True, overflow="crop").join(lines)
    table.no_wrap, table.overflow = True, "crop"
    return table


def _line(cells: Sequence[Text], needs: Sequence[int], is_right: Sequence[bool]) -> Text:
    line = Text()
    for cell, need, right in zip(cells, needs, is_right, strict=True):
        blank = " " * (need - cell.cell_len)
        line.append(blank if right else "").append_text(cell).append("" if right else blank).append(_GAP)
    line.rstrip()
    return line


def _chosen(columns: Mapping[str, Sequence[str | Text]], *, extra: Sequence[str], width: int) -> Text:
    """A table of these columns, without the `extra` ones where the terminal is narrow."""
    names = [name for name in columns if width >= ROOMY or name not in extra]
    return plain(names, list(zip(*(columns[name] for name in names), strict=True)), width)


def state(status: Status, outcome: Outcome | None) -> Text:
    """The outcome if finished, else the status, in its colour."""
    one = outcome or status
    return Text(str(one).replace("_", " "), style=STYLES[one])


def step_table(build: Build) -> Table:
    """One line per step: its status, its duration, and why it waits or how it ended."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for options in ({}, {}, {}, {"justify": "right"}):
        table.add_column(no_wrap=True, **options)  # type: ignore[arg-type]  # a justify method's name
    table.add_column(overflow="fold")
    for step in build.steps:
        table.add_row(
            f"  {step.kind}",
            step.arch or "",
            state(step.status, step.outcome),
            duration(ran_s(step)),
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
        (clean(build.name), "bold"),
        ("  for ", "dim"),
        clean(place_of(build.project, build.target)),
        "  ",
        state(build.status, build.outcome),
        (f"  {took}", "dim"),
    )


def build_details(build: Build, target: Target | None) -> RenderableType:
    """Owner, time, source and options; and limits of `build` steps that differ from the target's, if known."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("  source", clean(build.source.shown) or "(uploaded)")
    if build.commit:
        table.add_row("  commit", clean(build.commit))
    if build.target_sha256:
        table.add_row("  target", f"{clean(build.target)} as recorded in {clean(build.target_sha256[:12])}")
    table.add_row("  asked", f"{ago(build.created_at)} ago by {clean(build.owner)}, in batch:{build.batch_id}")
    wishes = options_words(build)
    if wishes:
        table.add_row("  options", wishes)
    if target is not None and (others := _other_limits(build, target)):
        table.add_row("  limits", others)
    for one in build.warnings:
        table.add_row("  warning", clean(one))
    for label, words in replacement_words(build):
        table.add_row(f"  {label}", words)
    return table


def replacement_words(build: Build) -> Iterator[tuple[str, str]]:
    """The replacements of packages as lines, each with a label; the lines of one other build are joined."""
    for label, words, found in (
        ("replaces", ("replaces the package of", "replace those of"), [(one.of, one) for one in build.replaces]),
        ("replaced", ("was replaced by", "were replaced by"), [(one.by, one) for one in build.replaced]),
    ):
        for other in dict.fromkeys(number for number, _ in found):
            names = list(dict.fromkeys(clean(one.package) for number, one in found if number == other))
            shown = ", ".join(names[:_REPLACED_SHOWN])
            more = f" and {len(names) - _REPLACED_SHOWN} more" if len(names) > _REPLACED_SHOWN else ""
            noun, verb = ("package", words[0]) if len(names) == 1 else ("packages", words[1])
            yield label, f"{noun} {shown}{more} {verb} build {other}"


def options_words(build: Build) -> str:
    """The options as a person would type them."""
    words = [f"--with {name}" for name in build.options.with_]
    words += [f"--without {name}" for name in build.options.without]
    words += [f"--define '{clean(name)} {clean(value)}'" for name, value in build.options.defines]
    if build.options.timeout_s is not None:
        words.append(f"--timeout {build.options.timeout_s}")
    words += [f"--limit {limit_words(name, value)}" for name, value in build.options.limits.given.items()]
    if build.priority:
        words.append(f"--priority {build.priority}")
    return " ".join(words)


def _other_limits(build: Build, target: Target) -> str:
    return ", ".join(
        f"{limit_words(name, own)} (the target's is {limit_text(name, usual)})"
        for name, own, usual in differing_limits(build, target)
    )


def build_list(builds: Sequence[Build], width: int) -> Text:
    columns: dict[str, Sequence[str | Text]] = {
        "build": [str(build.id) for build in builds],
        "package": [_short(clean(build.name)) for build in builds],
        "target": [clean(place_of(build.project, build.target)) for build in builds],
        "state": [state(build.status, build.outcome) for build in builds],
        "age": [ago(build.created_at) for build in builds],
        "took": [duration(seconds(build.created_at, build.finished_at)) for build in builds],
        "owner": [_short(clean(build.owner)) for build in builds],
        "about": [clean(build.reason) or waiting(build) for build in builds],
    }
    return _chosen(columns, extra=("took", "owner"), width=width)


def queue_table(serving: Mapping[str, tuple[int, str]], counts: Mapping[str, tuple[int, int]], width: int) -> Text:
    rows = []
    for name in sorted({*serving, *counts}):
        ready, busy = counts.get(name, (0, 0))
        has, why = serving.get(name, (0, ""))
        remark = Text("" if has else f"no worker: {clean(why)}" if why else "no worker", style="red")
        rows.append((name, str(has), str(busy), str(ready), remark))
    return plain(("queue", "slots", "busy", "ready", ""), rows, width)


def worker_table(
    workers: Sequence[WorkerFacts],
    holds: Mapping[str, HostHold],
    running: Mapping[str, Sequence[str]],
    width: int,
) -> Text:
    columns: dict[str, Sequence[str | Text]] = {
        "worker": [clean(one.name) for one in workers],
        "queues": [clean(" ".join(one.queues)) for one in workers],
        "busy": [f"{len(running.get(one.name, ()))} of {one.slots}" for one in workers],
        "builds for": [" ".join(one.arches) for one in workers],
        "engines": [clean(" ".join(one.engines)) for one in workers],
        "memory": [size(one.memory_bytes) if one.memory_bytes else "" for one in workers],
        "disk free": [size(one.disk_free_bytes) if one.disk_free_bytes else "" for one in workers],
        "up": [ago(one.started_at) for one in workers],
        "": [_why_idle(one, holds) for one in workers],
    }
    return _chosen(columns, extra=("engines", "memory", "disk free"), width=width)


def _why_idle(worker: WorkerFacts, holds: Mapping[str, HostHold]) -> Text:
    why = idle_reason(worker, holds)
    return Text(clean(why), style="yellow" if why in list(HoldKind) else "red")


def target_table(targets: Mapping[str, Target | BadTarget], width: int) -> Text:
    rows: list[tuple[str | Text, ...]] = []
    for name, target in targets.items():
        if isinstance(target, Target):
            about = clean(f"{target.distribution} {target.release}")
            rows.append((clean(name), about, target.engine, " ".join(target.arches)))
        else:
            rows.append((clean(name), Text("not valid", style="red"), "", ""))
    return plain(("target", "distribution", "engine", "arches"), rows, width)


def file_table(files: Sequence[StoredFile], width: int) -> Text:
    rows = [
        (file.step_name, file.artifact.kind, size(file.artifact.size_bytes), clean(file.artifact.name))
        for file in files
    ]
    return plain(("step", "kind", "size", "name"), rows, width)


def version_table(versions: Sequence[RepositoryVersion], width: int) -> Text:
    rows = [
        (
            str(one.number),
            Text("current" if one.is_current else "", style="green"),
            f"{ago(one.published_at)} ago",
            str(one.packages),
            clean(one.url),
        )
        for one in versions
    ]
    return plain(("version", "", "published", "packages", "url"), rows, width)


def check_table(checks: Sequence[RepositoryCheck], width: int) -> Text:
    rows = [
        (Text("ok" if one.is_ok else "bad", style="green" if one.is_ok else "red"), clean(one.what), clean(one.found))
        for one in checks
    ]
    return plain(("", "what", "found"), rows, width)


def excerpt(text: str, limit_lines: int = 20) -> Table:
    """The last lines of the excerpt of the log, behind a bar."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in text.splitlines()[-limit_lines:]:
        table.add_row("    │", Text(clean(line.expandtabs())))
    return table


def _about(step: Step) -> Text:
    last = step.attempts[-1] if step.attempts else None
    words = "; ".join(clean(part) for part in (step.reason, step.waits_for) if part)
    if step.status is Status.RUNNING and last and last.worker:
        words = f"on {clean(last.worker)}"
    if len(step.attempts) > 1:
        words = f"{words} (attempt {len(step.attempts)})".strip()
    is_bad = step.outcome is not None and not step.outcome.is_success and step.counts
    return Text(words, style="" if is_bad else "dim")


def _short(name: str) -> str:
    return name if len(name) <= _PACKAGE_CHARS else f"{name[: _PACKAGE_CHARS - 1]}…"


def project_table(found: Sequence[Project], width: int) -> Text:
    columns: dict[str, Sequence[str | Text]] = {
        "project": [one.name for one in found],
        "targets": [clean(" ".join(one.targets)) or "all" for one in found],
        "builds on": [" ".join(one.builds_on) for one in found],
        "members": [str(len(one.members)) for one in found],
        "": ["private" if one.is_private else "" for one in found],
        "title": [clean(one.title) for one in found],
    }
    return _chosen(columns, extra=("members",), width=width)


def project_details(project: Project, packages: Sequence[ProjectPackage]) -> Table:
    """The settings and members of a project, and the names of its packages."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "title": clean(project.title),
        "targets": clean(", ".join(project.targets)) or "all",
        "builds on": ", ".join(project.builds_on),
        "root packages": clean(", ".join(project.root_packages)),
        "private": "yes: only members and administrators see it" if project.is_private else "",
        "members": ", ".join(f"{clean(one.actor)} ({one.role})" for one in project.members),
        "packages": ", ".join(one.name for one in packages),
        "made": f"{ago(project.created_at)} ago by {clean(project.created_by)}",
        "removed": f"{ago(project.removed_at)} ago by {clean(project.removed_by)}" if project.removed_at else "",
    }
    for name, words in rows.items():
        if words:
            table.add_row(f"  {name}", words)
    return table


def package_table(found: Sequence[ProjectPackage], width: int) -> Text:
    rows = [
        (
            one.name,
            " ".join(one.arches) or "all",
            f"{ago(one.added_at)} ago",
            clean(one.added_by),
            clean(one.source.shown),
        )
        for one in found
    ]
    return plain(("package", "arches", "added", "by", "source"), rows, width)


def token_table(found: Sequence[Token], width: int) -> Text:
    now = datetime.now(UTC)
    rows = [
        (
            str(one.id),
            clean(one.actor),
            ", ".join(one.roles) + (f" in {one.project}" if one.project else ""),
            one.state(now),
            f"{one.expires_at:%Y-%m-%d}",
            f"{ago(one.last_used_at)} ago" if one.last_used_at else "never",
            clean(one.name),
        )
        for one in found
    ]
    return plain(("token", "actor", "roles", "state", "expires", "used", "name"), rows, width)


def audit_table(found: Sequence[AuditRecord], width: int) -> Text:
    rows = [
        (
            f"{one.at:%Y-%m-%d %H:%M:%S}",
            clean(one.actor),
            clean(one.origin),
            one.verb,
            clean(one.subject),
            Text(one.outcome, style="" if one.outcome == DONE else "red"),
            clean(one.detail),
        )
        for one in found
    ]
    return plain(("time (UTC)", "actor", "from", "verb", "of", "ended", "detail"), rows, width)

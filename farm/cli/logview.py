"""Writes a log to standard output: the raw bytes into a pipe, escaped text to a terminal."""

import codecs
import sys
from collections.abc import Iterable
from contextlib import closing

from farm.cli.session import say
from farm.cli.text import clean, clean_lines
from farm.client import FarmApi
from farm.errors import FarmError, NotFound
from farm.model.build import Attempt, Build, Step
from farm.model.outcome import Status
from farm.service.log import LogPlace, Times, find_log
from farm.service.request import arch_named


def show_log(
    farm: FarmApi, build_id: int, *, step: str | None, arch: str | None, attempt: int | None, with_times: bool
) -> None:
    """Show one attempt's log, to its end or to its present size."""
    place = find_log(farm.build(build_id), step=step, arch=arch_named(arch), attempt=attempt)
    times = _times(farm, place) if with_times else None
    chosen = place.step
    _write(farm.log(build_id, chosen.kind, chosen.arch, place.attempt.number), times)


def follow_log(farm: FarmApi, build_id: int, *, step: str | None, arch: str | None) -> None:
    """Show the logs of running steps, one after the other, until the build, or the named step, has finished.

    It follows one arch: the named one, else the first that is built. For a finished build it does the same as
    `show_log`.
    """
    wanted = arch_named(arch)
    passed = {one.label for part in farm.build(build_id).steps for one in part.attempts if _is_over(one)}
    before = len(passed)
    with closing(farm.watch(build_id)) as snapshots:
        for seen in snapshots:
            build = seen or farm.build(build_id)
            while (place := _next(build, step=step, arch=wanted, passed=passed)) is not None:
                passed.add(place.attempt.label)
                _follow_one(farm, build_id, place)
                build = farm.build(build_id)
            if step is not None and all(one.status is Status.FINISHED for one in _steps(build, step, wanted)):
                break
    if len(passed) == before:
        show_log(farm, build_id, step=step, arch=arch, attempt=None, with_times=False)


def _follow_one(farm: FarmApi, build_id: int, place: LogPlace) -> None:
    step, attempt = place.step, place.attempt
    say(f"==> {step.name}, attempt {attempt.number} <==")
    try:
        _write(farm.log(build_id, step.kind, step.arch, attempt.number, follow=True), None)
    except NotFound as error:  # the attempt was cancelled before it wrote anything, or withdrawn
        say(f"({clean(str(error))})")


def _steps(build: Build, step: str | None, arch: str | None) -> list[Step]:
    """The steps to follow, which are those of one arch."""
    first = next((one.arch for one in build.steps if one.arch and one.attempts), None)
    return [
        one for one in build.steps if step in (None, one.kind) and (one.arch is None or one.arch == (arch or first))
    ]


def _next(build: Build, *, step: str | None, arch: str | None, passed: set[str]) -> LogPlace | None:
    """The first attempt in the order of the chain that has not been followed yet."""
    for one in _steps(build, step, arch):
        for attempt in one.attempts:
            if attempt.label not in passed:
                return LogPlace(step=one, attempt=attempt)
    return None


def _is_over(attempt: Attempt) -> bool:
    return attempt.status is Status.FINISHED


def _times(farm: FarmApi, place: LogPlace) -> Times | None:
    sidecar = place.times
    if sidecar is None:
        say("warning: this log has no timestamps: the step goes on, or took less than a second")
        return None
    try:
        return Times(farm.read(sidecar))
    except (ValueError, FarmError) as error:
        say(f"warning: the timestamps of this log cannot be read: {error}")
        return None


def _write(chunks: Iterable[bytes], times: Times | None) -> None:
    terminal = sys.stdout.isatty()
    sys.stdout.flush()
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    for data in _stamped(chunks, times) if times else chunks:
        if terminal:
            sys.stdout.write(clean_lines(decoder.decode(data).replace("\r\n", "\n")))
        else:
            sys.stdout.buffer.write(data)
        sys.stdout.flush()
    if terminal:
        sys.stdout.write(clean_lines(decoder.decode(b"", final=True)))


def _stamped(chunks: Iterable[bytes], times: Times) -> Iterable[bytes]:
    """The same bytes, with the time before each line."""
    offset = 0
    at_start = True
    for data in chunks:
        parts = []
        for line in data.splitlines(keepends=True) if data else ():
            if at_start:
                parts.append(f"{times.seconds_at(offset) or 0:9.3f}  ".encode())
            parts.append(line)
            offset += len(line)
            at_start = line.endswith(b"\n")
        yield b"".join(parts)

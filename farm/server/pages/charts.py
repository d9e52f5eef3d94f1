"""The geometry of plots, in units of their viewBox. Templates draw them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from farm.model.arch import Arch
from farm.model.build import Build, Step
from farm.model.history import StepRun
from farm.model.outcome import Outcome, Status
from farm.service.history import makes_packages

WIDTH, HEIGHT = 1000, 120
_GAP = 3
_BAR_MAX = 22.0
_LEAST = 3.0
LINE = 1000


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One build of a package."""

    x: float
    y: float
    width: float
    height: float
    build: Build
    outcome: Outcome
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Durations of the builds of a package for one arch, oldest first. `top_s` is the value of the upper line."""

    arch: Arch
    bars: tuple[Bar, ...]
    top_s: float


@dataclass(frozen=True, kw_only=True)
class Span:
    """A part of a line of time: while a step waited in its queue, or ran."""

    x: float
    width: float
    state: str
    words: str


@dataclass(frozen=True, kw_only=True)
class TimeLine:
    step: Step
    spans: tuple[Span, ...]
    seconds: float | None


def history_chart(builds: Sequence[Build], runs: Sequence[StepRun]) -> tuple[Chart, ...]:
    """By arch, a bar for each build whose step that makes packages is over."""
    by_id = {build.id: build for build in builds}
    charts = []
    for arch in Arch:
        own = [
            run
            for run in runs
            if run.arch is arch and run.outcome is not None and run.seconds is not None and makes_packages(run.kind)
        ]
        if own:
            charts.append(_chart(arch, sorted(own, key=lambda run: run.build), by_id))
    return tuple(charts)


def _chart(arch: Arch, runs: Sequence[StepRun], builds: dict[int, Build]) -> Chart:
    top = nice_top(max(run.seconds or 0.0 for run in runs))
    step = min(_BAR_MAX + _GAP, WIDTH / len(runs))
    bars = []
    for place, run in enumerate(runs):
        height = max(_LEAST, HEIGHT * (run.seconds or 0.0) / top)
        bars.append(
            Bar(
                x=round(place * step, 1),
                y=round(HEIGHT - height, 1),
                width=round(max(1.0, step - _GAP), 1),
                height=round(height, 1),
                build=builds[run.build],
                outcome=run.outcome or Outcome.ERRORED,
                seconds=run.seconds or 0.0,
            )
        )
    return Chart(arch=arch, bars=tuple(bars), top_s=top)


def nice_top(value: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below the value.

    >>> nice_top(37)
    50.0
    """
    if value <= 1:
        return 1
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value)


def time_lines(build: Build) -> tuple[tuple[TimeLine, ...], float]:
    """A line for each step that has an attempt, and the seconds of all of their width."""
    begin = build.created_at
    end = build.finished_at or datetime.now(UTC)
    latest = [at for step in build.steps for one in step.attempts if (at := one.finished_at or one.started_at)]
    whole = max(0.001, *((at - begin).total_seconds() for at in [end, *latest]))

    def place(at: datetime) -> float:
        return round(min(LINE, max(0.0, (at - begin).total_seconds() / whole * LINE)), 1)

    lines: list[TimeLine] = []
    for step in build.steps:
        spans: list[Span] = []
        if not lines and step.attempts:  # the first step was ready as soon as the build was asked for
            spans.append(Span(x=0, width=place(step.attempts[0].dispatched_at), state="queued", words="ready"))
        for one in step.attempts[-_SPANS_MAX:]:
            started, finished = one.started_at, one.finished_at or end
            sent, until = place(one.dispatched_at), place(started or finished)
            spans.append(Span(x=sent, width=max(0.0, until - sent), state="queued", words="in its queue"))
            if started is not None:
                state = str(one.outcome or Status.RUNNING)
                x = place(started)
                spans.append(Span(x=x, width=max(2.0, place(finished) - x), state=state, words=f"attempt {one.number}"))
        if spans:
            last = step.attempts[-1]
            ran = ((last.finished_at or end) - last.started_at).total_seconds() if last.started_at else None
            lines.append(TimeLine(step=step, spans=tuple(spans), seconds=ran))
    return tuple(lines), whole


_SPANS_MAX = 8

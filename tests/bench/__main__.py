"""`make bench`: the cost of the farm over bare rpmbuild, as ratios within one run, and its cost with many builds.
Prints a table, writes JSON. `make bench PARTS="load leases"` takes only those parts.

A machine's speed drifts, so what is compared is run in turn, A B A B, and medians are quoted.
"""

import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from farm.client import Farm
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from farm.targets.load import find_target
from farm.up.embedded import running_farm
from tests import reason_table, survey
from tests.bench import bare, hostile, idle, latency, leases, live, load, pulp, room, startup, tiny, trial
from tests.distribution import demo_distribution
from tests.packages import make_git

MANY = 200
PAIRS = 9
#: The value that must be reached, and the value that is aimed at. A figure of several values has a goal for each value
#: that is named here.
GOALS: dict[str, tuple[float, float]] = {
    "room_over_bare": (1.3, 1.1),
    "survey": (1.0, 1.0),
    "fetch_room_ms": (150, 80),
    "farm_overhead_s": (0.8, 0.4),
    "many_over_bare": (4.0, 2.0),
    "start_latency_ms.p50": (60, 30),
    "start_latency_ms.p95": (160, 80),
    "status_over_bare": (4.0, 3.5),
    "list_over_bare": (4.0, 3.5),
    "help_over_bare": (4.0, 2.5),
    "build_help_over_bare": (4.0, 2.5),
    "enqueue_per_s": (2000, 10_000),
    "schedule_growth": (1.5, 1.1),
    "postgresql_schedule_growth": (1.5, 1.1),
    "finished_growth": (2.0, 1.2),
    "postgresql_finished_growth": (2.0, 1.2),
    "try_start_ms": (800, 500),
    "lease_cost.sum": (0.25, 0.1),
    "pulp_over_cli": (4.0, 8.0),
    "hostile_documents_per_s": (2000, 10_000),
    "hostile_latency_ms.p95": (100, 50),
    "log_latency_ms.p50": (200, 100),
    "log_latency_ms.p95": (600, 300),
    "live_logs": (200, 500),
    "reason_right.tuned": (0.95, 0.97),
    "reason_right.held_out": (0.9, 0.97),
}
MORE_IS_BETTER = {
    "survey",
    "pulp_over_cli",
    "enqueue_per_s",
    "hostile_documents_per_s",
    "reason_right",
    "live_logs",
}
PARTS = ("farm", "load", "leases", "pulp", "hostile", "start", "reasons", "try", "live")
FARM, LOAD, LEASES, PULP, HOSTILE, START, REASONS, TRY, LIVE = PARTS

console = Console()


def main(parts: Sequence[str]) -> None:
    if unknown := sorted(set(parts) - set(PARTS)):
        raise SystemExit(f"no part {unknown[0]}; there are {', '.join(PARTS)}")
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="farm-figures-") as name:
        data = Path(name)
        if FARM in parts:
            figures |= _whole_farm(data)
        if LOAD in parts:
            figures |= load.figures(data / "load", _said)
        if LEASES in parts:
            with _said(f"the leases of {leases.RUNNING} running builds"):
                figures["lease_cost"] = leases.cost(data / "leases")
        if HOSTILE in parts:
            with _said("a scheduler beside a sender that floods it"):
                figures |= hostile.figures(data / "hostile")
        if START in parts:
            with _said("`farm status` as a process against a bare Python"):
                figures |= startup.figures(data / "start")
        if REASONS in parts:
            with _said("the reasons of recorded failures"):
                halves = {name: reason_table.answers(held_out=name == "held_out") for name in ("tuned", "held_out")}
                figures["reason_right"] = {
                    name: round(reason_table.share_right(half), 3) for name, half in halves.items()
                }
        if TRY in parts:
            with _said("`farm try` until the first command of the recipe against bare rpmbuild"):
                figures |= trial.figures(_settings(data), data / "try")
        if LIVE in parts:
            with _said(f"{live.FOLLOWERS} followers of one log"):
                figures |= live.figures(data / "live")
        if PULP in parts:
            figures |= pulp.figures(data / "pulp", _said)
    _print(figures)
    figures["machine"] = {"cpus": len(_cpus()), "python": platform.python_version(), "kernel": platform.release()}
    Path("bench-results.json").write_text(json.dumps(figures, indent=2) + "\n")
    console.print("written to bench-results.json")


def _whole_farm(data: Path) -> dict[str, object]:
    figures: dict[str, object] = {}
    settings = _settings(data)
    srpm = tiny.make_trivial_c(data / "srpms")
    figures["template_s"], figures["room_over_bare"] = _room(settings, srpm, data)
    with _said(f"asking rpm for the sources of a spec, {PAIRS} times"):
        target = find_target(settings, "demo")
        asked_s = statistics.median(room.ask(settings, target) for _ in range(PAIRS))
        figures["fetch_room_ms"] = round(1000 * asked_s, 1)
    many = tiny.make_srpms(MANY, data / "many")
    with running_farm(settings, say=lambda what: console.print(f"[dim]starting {what}[/dim]")) as embedded:
        figures["idle_memory_mib"] = idle.memory_mib(embedded.processes)
        with _said(f"{latency.ROUNDS} times from being asked to the first thing that fetch does"):
            figures["start_latency_ms"] = latency.start_ms(settings)
        figures |= _farm(settings, srpm, many, data)
    return figures


def _settings(data: Path) -> Settings:
    if not (data / "demo").exists():
        (data / "demo").mkdir()
        (data / "demo" / "distribution").symlink_to(demo_distribution())
    return Settings.from_env(
        {
            "FARM_DATA": str(data),
            "FARM_LOG_LEVEL": "WARNING",
            "FARM_OWNER": "bench",
            "FARM_ALLOW_NETWORKS": "127.0.0.0/8",
        }
    )


def _room(settings: Settings, srpm: Path, data: Path) -> tuple[float, float]:
    """Seconds for the first root of the target, and a session's time over bare rpmbuild's for a trivial C package."""
    target = find_target(settings, "demo")
    with _said("template: the first root of a target"):
        template_s = room.build(settings, target, srpm)
    pairs = []
    with _said(f"room against bare rpmbuild, {PAIRS} pairs"):
        for _ in range(PAIRS):
            bare_s = bare.rebuild(srpm, data / "bare")
            pairs.append(room.build(settings, target, srpm) / bare_s)
    return round(template_s, 2), round(statistics.median(pairs), 3)


def _farm(settings: Settings, srpm: Path, many: Sequence[Path], data: Path) -> dict[str, object]:
    with Farm.connect(settings) as farm:
        with _said("the survey: questions of a build about its root"):
            survey_share = _survey(farm, data)
        overheads = []
        with _said(f"one package through the whole farm, {PAIRS} pairs"):
            for _ in range(PAIRS):
                bare_s = bare.rebuild(srpm, data / "bare")
                start = time.monotonic()
                result = farm.enqueue(srpm=srpm, target="demo", arches=[Arch.X86_64]).wait(timeout_s=60)
                overheads.append(time.monotonic() - start - bare_s)
                assert result.outcome is Outcome.SUCCEEDED, result.reason
        with _said(f"{len(many)} packages with bare rpmbuild, two at a time"):
            bare_s = bare.rebuild_all(many, data / "bare-many", at_once=2)
        with _said(f"{len(many)} packages through the whole farm"):
            requests = [farm.request(srpm=path, target="demo", arches=[Arch.X86_64]) for path in many]
            start = time.monotonic()
            batch = farm.enqueue_many(requests)
            outcomes = [handle.wait(timeout_s=600).outcome for handle in batch]
            farm_s = time.monotonic() - start
        assert set(outcomes) == {Outcome.SUCCEEDED}, outcomes
    return {
        "survey": survey_share,
        "farm_overhead_s": round(statistics.median(overheads), 3),
        "many_over_bare": round(farm_s / bare_s, 2),
        "many_bare_s": round(bare_s, 2),
        "many_farm_s": round(farm_s, 2),
    }


def _survey(farm: Farm, data: Path) -> float:
    """The share of the questions, without those that docs/build-environment.md lists, that are answered with yes."""
    (data / "survey").mkdir()
    build = farm.enqueue(git=str(make_git("survey", data / "survey")), target="demo", arches=[Arch.X86_64])
    result = build.wait(timeout_s=120)
    assert result.outcome is Outcome.SUCCEEDED, result.reason
    found = survey.answers(b"".join(farm.log(result.id, step="build")).decode(errors="replace"))
    asked = found.keys() - survey.DIFFERENCES
    return round(len(asked - survey.refused(found).keys()) / max(len(asked), survey.QUESTIONS_MIN), 3)


def _cpus() -> list[str]:
    return [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("processor")]


def _print(figures: dict[str, object]) -> None:
    table = Table("figure", "value", "reach", "aim")
    for key, value in figures.items():
        for line, one in _lines(key, value):
            sign = "≥" if key in MORE_IS_BETTER else "≤"
            goals = [f"{sign} {goal}" for goal in GOALS.get(line, ())] or ["", ""]
            table.add_row(line, json.dumps(one), *goals)
    console.print(table)


def _lines(key: str, value: object) -> Iterator[tuple[str, object]]:
    """A figure whose parts have goals is a line each."""
    if isinstance(value, dict) and any(f"{key}.{part}" in GOALS for part in value):
        yield from ((f"{key}.{part}", one) for part, one in value.items())
    else:
        yield key, value


@contextmanager
def _said(what: str) -> Iterator[None]:
    start = time.monotonic()
    console.print(f"[dim]{what} …[/dim]")
    yield
    console.print(f"[dim]{what}: {time.monotonic() - start:.1f} s[/dim]")


if __name__ == "__main__":
    main(sys.argv[1:] or PARTS)

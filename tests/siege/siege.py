"""One siege from beginning to end: build the world, let stream and adversary loose, heal, wait, judge, clean up."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import redis

from tests.siege.adversary import Adversary
from tests.siege.evil_host import EvilHost
from tests.siege.facts import Facts, collect, left_over
from tests.siege.field import Field
from tests.siege.ground import sweep_dead, tag_of
from tests.siege.judge import Broken, Case, judge
from tests.siege.messages import Wiretap
from tests.siege.shape import DatabaseKind, Shape
from tests.siege.sql import DatabaseAway
from tests.siege.stream import Stream
from tests.siege.timeline import Timeline
from tests.siege.watcher import Watcher
from tests.siege.world import World, WorldTrouble

_TICK_S = 0.05
_SAY_EVERY_S = 15.0
_FIRST_WITHIN_S = 240.0
_HEALED_WITHIN_S = 60.0
_CLEAN_WITHIN_S = 30.0
_JOIN_WITHIN_S = 10.0
_numbers = count(1)

Say = Callable[[str], object]


@dataclass(kw_only=True)
class Report:
    """How it went. `owed` are wounds of the shape that did not come, or did not heal, in time.

    `folder` is what was kept of a siege that found something; None when it is gone.
    """

    shape: Shape
    broken: list[Broken]
    timeline: Timeline
    outcomes: Counter[str] = field(default_factory=Counter)
    wounds: Counter[str] = field(default_factory=Counter)
    deeds: Counter[str] = field(default_factory=Counter)
    attacks: Counter[str] = field(default_factory=Counter)
    owed: list[str] = field(default_factory=list)
    has_accounts: bool = False
    lost: int = 0
    attempts: int = 0
    retried: int = 0
    refused: int = 0
    longest_s: dict[str, float] = field(default_factory=dict)
    took_s: float = 0.0
    quiet_s: float = 0.0
    folder: Path | None = None


class Siege:
    """Use `lay`."""

    def __init__(self, shape: Shape, distribution: Path, say: Say) -> None:
        self._shape = shape
        self._say = say
        rng = random.Random(shape.seed)
        # Each has a generator of its own, so that one's pace does not change what the others choose.
        seeds = [rng.getrandbits(32) for _ in range(4)]
        self._timeline = Timeline()
        sweep_dead()
        tag = tag_of(next(_numbers))
        self._world = World(shape, tag, random.Random(seeds[0]), distribution, self._timeline)
        self._watcher = Watcher(self._world)
        self._wiretap = Wiretap(self._world)
        self._field = Field(
            world=self._world, watcher=self._watcher, wiretap=self._wiretap, rng=random.Random(seeds[1])
        )
        self._evil = EvilHost(self._world, self._watcher, random.Random(seeds[3]))
        self._stream_rng = random.Random(seeds[2])
        self._stream: Stream | None = None
        self._adversary: Adversary | None = None
        self._owed: list[str] = []
        self._next_say = 0.0

    def run(self) -> Report:
        """Raises WorldTrouble when there is nothing to judge."""
        began_at = time.monotonic()
        is_kept = True
        try:
            stream = self._begin()
            self._attack(stream)
            quiet_s = self._settle(stream)
            facts = self._look()
            report = self._judge(facts, stream)
            report.quiet_s, report.took_s = quiet_s, time.monotonic() - began_at
            is_kept = bool(report.broken)
            report.folder = self._world.ground.folder if is_kept else None
            if is_kept:
                lines = "".join(f"{entry.shown}\n" for entry in self._timeline.entries())
                (self._world.ground.log / "timeline.txt").write_text(lines)
            return report
        except KeyboardInterrupt:
            is_kept = False
            raise
        finally:
            self._end(keep=is_kept)

    def _begin(self) -> Stream:
        world = self._world
        world.start()
        if not world.has_clocks:
            self._say("NOT TRIED: stepping clocks, since cc did not compile tests/siege/clock.c; install gcc")
        if not world.accounts.passwords:
            self._say(
                "NOT TRIED: the broker's accounts, which need Redis 7; install redis-server 7 or newer, or valkey"
            )
        self._watcher.start()
        self._wiretap.start()
        stream = self._stream = Stream(
            self._shape, world.settings, world.ground.folder / "srpms", self._stream_rng, self._timeline, self._watcher
        )
        (first,) = stream.first().ids
        self._until(lambda: self._watcher.counts.get("succeeded"), _FIRST_WITHIN_S, f"build {first}, the first")
        self._say(f"the farm is up after {self._timeline.now_s:.0f} s")
        return stream

    def _attack(self, stream: Stream) -> None:
        self._adversary = Adversary(self._field)
        stream.start()
        self._evil.start()
        began_at = time.monotonic()
        while (past_s := time.monotonic() - began_at) < self._shape.attack_s + _HEALED_WITHIN_S:
            self._owed = self._adversary.owed
            if past_s >= self._shape.attack_s and not self._owed:
                break
            self._tick()
            self._adversary.act()
        stream.stop.set()
        self._evil.stop.set()
        self._adversary.heal_all()
        self._timeline.add("adversary", "everything is healed")
        self._say(f"{self._timeline.now_s:.0f} s: everything is healed; waiting for the farm to finish")

    def _settle(self, stream: Stream) -> float:
        """Seconds until nothing was under way any more, or until the farm's time was up."""
        began_at = time.monotonic()
        with suppress(WorldTrouble):
            self._until(lambda: self._is_all_over(stream), self._shape.quiet_s, "everything to end")
        return time.monotonic() - began_at

    def _is_all_over(self, stream: Stream) -> bool:
        if stream.is_alive() or self._evil.is_alive():
            return False
        return not self._watcher.is_away and set(self._watcher.counts) <= _OVER

    def _look(self) -> Facts:
        def is_clean() -> bool:
            with suppress(redis.RedisError):
                return not list(left_over(self._world))
            return False

        with suppress(WorldTrouble):
            self._until(is_clean, _CLEAN_WITHIN_S, "the farm to be clean", every_s=1.0)
        while True:
            try:
                return collect(self._world)
            except (DatabaseAway, redis.RedisError):
                self._tick()

    def _judge(self, facts: Facts, stream: Stream) -> Report:
        case = Case(
            facts=facts,
            asked=stream.asked,
            causes=self._field.causes,
            lives=self._watcher.lives,
            held=self._watcher.held,
            denials=self._watcher.denials,
            let_through=self._evil.let_through,
            may_double=self._shape.database is DatabaseKind.POSTGRESQL,
        )
        broken = judge(case)
        broken += [Broken(rule=rule, build=build, text=text) for rule, build, text in self._watcher.waits.broken]
        for thread in (stream, self._watcher, self._evil):
            if thread.failure is not None:
                broken.append(Broken(rule="siege", text=f"the {thread.name} itself failed: {thread.failure!r}"))
        lost = [one for one in facts.attempts if one.outcome == "errored"]
        return Report(
            shape=self._shape,
            broken=broken,
            timeline=self._timeline,
            outcomes=Counter(build.outcome or build.status for build in facts.builds),
            wounds=self._adversary.done if self._adversary else Counter(),
            deeds=self._evil.done,
            attacks=Counter(str(one.recipe.kind) for one in stream.asked if one.recipe.is_hostile),
            owed=self._owed,
            has_accounts=bool(self._world.accounts.passwords),
            lost=len(lost),
            attempts=len(facts.attempts),
            retried=sum(one.retried for one in stream.asked),
            refused=sum(one.raised for one in stream.asked),
            longest_s=dict(self._watcher.waits.longest_s),
        )

    def _end(self, *, keep: bool) -> None:
        self._watcher.stop.set()
        self._wiretap.stop.set()
        self._evil.stop.set()
        if self._stream is not None:
            self._stream.stop.set()
        if self._adversary is not None:
            with suppress(Exception):
                self._adversary.heal_all()
        self._world.close(keep=keep)
        threads: list[threading.Thread] = [self._watcher, self._wiretap, self._evil]
        for thread in [*threads, *([self._stream] if self._stream else [])]:
            if thread.ident is not None:
                thread.join(_JOIN_WITHIN_S)

    # --- meanwhile ----------------------------------------------------------------------------------------------

    def _until(self, is_so: Callable[[], object], within_s: float, what: str, every_s: float = _TICK_S) -> None:
        """Raises WorldTrouble."""
        deadline = time.monotonic() + within_s
        next_look = 0.0
        while True:
            if time.monotonic() >= next_look:
                if is_so():
                    return
                next_look = time.monotonic() + every_s
            if time.monotonic() > deadline:
                raise WorldTrouble(f"waited {within_s:g} s for {what}; the logs are in {self._world.ground.log}")
            self._tick()

    def _tick(self) -> None:
        self._world.members.tend()
        if time.monotonic() >= self._next_say and self._adversary is not None and self._stream is not None:
            self._next_say = time.monotonic() + _SAY_EVERY_S
            over = sum(number for key, number in self._watcher.counts.items() if key in _OVER)
            last = ", ".join(self._adversary.last) or "nothing yet"
            self._say(
                f"{self._timeline.now_s / 60:5.1f} min: {over} of {self._stream.enqueued} builds are over; last: {last}"
            )
        time.sleep(_TICK_S)


_OVER = {
    "succeeded", "unchanged", "excluded", "cancelled", "unresolvable", "failed", "stalled", "timed_out", "over_limit",
    "errored",
}  # fmt: skip


def lay(shape: Shape, distribution: Path, say: Say) -> Report:
    """Raises WorldTrouble, and KeyboardInterrupt, with nothing left running or mounted."""
    with _terminable():
        return Siege(shape, distribution, say).run()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a siege as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

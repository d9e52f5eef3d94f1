"""The objects of wounds, their kinds, and the adversary's restraint: no step is hurt so often that it may be given up.

A wound that lasts says for how long, and how it is undone. Attempts that may be lost for it are noted with the
cause: the judge accepts no other excuse for a lost attempt.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.siege.members import Member
from tests.siege.messages import Wiretap
from tests.siege.watcher import Watcher
from tests.siege.world import World

_HURTS = 2  # a step that loses three workers is rightly given up
_TROUBLES = 3
_SEEN_LATE_S = 3.0  # SQL says a second or two later that an attempt runs


@dataclass(frozen=True, kw_only=True)
class Cause:
    """The cause for which attempts of these workers, or of these labels, that ran at some time from `at_s` to `until_s`
    on the timeline may be lost, whenever that is found out."""

    at_s: float
    until_s: float
    workers: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Wound:
    """`lasts_s` until `heal` is called; None for what is over at once, or what a service manager mends."""

    kind: str
    victim: str
    lasts_s: float | None = None
    heal: Callable[[], object] = lambda: None


@dataclass(kw_only=True)
class Field:
    """The objects of wounds. Belongs to the thread that tends the members."""

    world: World
    watcher: Watcher
    wiretap: Wiretap
    rng: random.Random
    causes: list[Cause] = field(default_factory=list)
    hurts: Counter[tuple[int, str]] = field(default_factory=Counter)
    is_one_cut_for_good: bool = False

    def hosts(self) -> list[str]:
        """The hosts that are well."""
        return [name for name in self.world.hosts if name not in self.world.ill_hosts]

    def may_hurt(self, workers: Iterable[Member], labels: Iterable[str] = ()) -> bool:
        """Whether no step on these has been hurt too often; they are hurt once more then."""
        workers = tuple(workers)
        # The attempts that run there by the process table: SQL has them a second or two later.
        known = {tuple(label.split(".", 1)) for label in {*labels, *self.labels_on(workers)}}
        keys = {(int(build), rest.rpartition(".")[0]) for build, rest in known}
        seen = self.watcher.on(member.worker for member in workers)
        keys |= {one.key for one in seen}
        troubled = any(self.watcher.seen[key].troubles >= _TROUBLES for key in keys if key in self.watcher.seen)
        if troubled or any(self.hurts[key] >= _HURTS for key in keys):
            return False
        self.hurts.update(keys)
        return True

    def note(self, workers: Iterable[Member], lasts_s: float = 0.0, labels: Iterable[str] = ()) -> None:
        workers, labels = tuple(workers), tuple(labels)
        self.watcher.hurt.update(labels, self.labels_on(workers))
        now_s = self.world.timeline.now_s
        names = frozenset(member.worker for member in workers)
        until_s = now_s + lasts_s + _SEEN_LATE_S
        self.causes.append(Cause(at_s=now_s - _SEEN_LATE_S, until_s=until_s, workers=names, labels=frozenset(labels)))

    def labels_on(self, workers: Iterable[Member]) -> list[str]:
        """The attempts that their pool processes run."""
        found = []
        for member in workers:
            attempts = self.world.attempts_in(member.host)
            found += [attempts[child] for child in member.children() if child in attempts]
        return found

    def worker(self, *, is_busy: bool) -> Member | None:
        well = [member for member in self.world.members.workers() if self.world.is_well(member)]
        busy = [member for member in well if self.labels_on([member])]
        chosen = busy if is_busy and busy else well
        return self.rng.choice(chosen) if chosen else None

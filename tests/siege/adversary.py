"""The adversary: a table of wounds, a seeded choice, and the promise to have undone everything in the end."""

import time
from collections import Counter
from collections.abc import Callable

from tests.siege import host_wounds, wounds
from tests.siege.field import Field, Wound

#: How likely each is, next to the others.
TABLE: dict[Callable[[Field], Wound | None], int] = {
    wounds.kill_child: 10,
    wounds.kill_main: 6,
    wounds.kill_group: 6,
    wounds.stop_child: 6,
    wounds.stop_main: 3,
    wounds.kill_leader: 5,
    wounds.kill_standby: 2,
    wounds.stop_leader: 3,
    wounds.kill_redis: 5,
    wounds.lose_redis: 3,
    wounds.empty_redis: 3,
    wounds.stop_redis: 3,
    wounds.kill_everything: 1,
    wounds.kill_database: 5,
    wounds.delete_lease: 4,
    wounds.deliver_twice: 10,
    host_wounds.cut_host: 6,
    host_wounds.cut_for_good: 2,
    host_wounds.step_clock: 5,
    host_wounds.step_scheduler: 2,
    host_wounds.fill_scratch: 4,
    host_wounds.fill_store: 2,
    host_wounds.freeze_store: 5,
}
BY_NAME = {wound.__name__: wound for wound in TABLE}
_AT_ONCE = 3  # wounds that last
_SIEGE_LONG_S = 3600.0


class Adversary:
    """Call `act` often; it does something every few seconds."""

    def __init__(self, field: Field) -> None:
        self.done: Counter[str] = Counter()
        self.last: list[str] = []
        self._field = field
        self._shape = field.world.shape
        self._rng = field.rng
        self._timeline = field.world.timeline
        self._open: list[tuple[float, Wound]] = []
        self._first = list(self._shape.wounds_first)
        self._promised: list[Wound] = []
        self._next_at = time.monotonic() + self._rng.uniform(*self._shape.act_every_s)

    @property
    def owed(self) -> list[str]:
        """The wounds of the shape that were not inflicted yet, or were and are not healed."""
        lasting = [one.kind for _, one in self._open if any(one is promised for promised in self._promised)]
        return [*self._first, *lasting]

    def act(self) -> None:
        now = time.monotonic()
        for due in [pair for pair in self._open if pair[0] <= now]:
            self._open.remove(due)
            self._heal(due[1])
        if now < self._next_at:
            return
        wound = self._inflict()
        if wound is None:
            self._next_at = now + 0.5
            return
        self._next_at = now + self._rng.uniform(*self._shape.act_every_s)
        self.done[wound.kind] += 1
        self.last = [*self.last[-2:], wound.kind]
        lasting = f", for {wound.lasts_s:.1f} s" if wound.lasts_s is not None else ""
        self._timeline.add("adversary", f"{wound.kind}: {wound.victim}{lasting}")
        if wound.lasts_s is not None:
            self._open.append((now + wound.lasts_s, wound))

    def heal_all(self) -> None:
        """Undo whatever is not undone yet. Safe to repeat."""
        while self._open:
            self._heal(self._open.pop()[1])

    def _inflict(self) -> Wound | None:
        short = [one for _, one in self._open if one.lasts_s is not None and one.lasts_s < _SIEGE_LONG_S]
        if len(short) >= _AT_ONCE:
            return None
        if self._first:
            wound = BY_NAME[self._first[0]](self._field)
            if wound is not None:
                self._first.pop(0)
                if wound.lasts_s is not None and wound.lasts_s < _SIEGE_LONG_S:
                    self._promised.append(wound)
            return wound
        chosen = self._rng.choices(list(TABLE), weights=list(TABLE.values()))[0]
        return chosen(self._field)

    def _heal(self, wound: Wound) -> None:
        wound.heal()
        self._timeline.add("adversary", f"healed {wound.kind}: {wound.victim}")

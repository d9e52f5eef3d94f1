"""The load: what people ask of the farm meanwhile. Enqueues, cancels and retries through the farm's own library.

If the farm refuses a request because a part of it is down, the stream asks again, as a person would; the judge gets the
message.
"""

import random
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from farm.client import Farm
from farm.config import Settings
from farm.errors import FarmError, FarmNotRunning, WrongState
from farm.model.outcome import Outcome, Status
from tests.siege.hostile import ORDER, OWNER, REQUIRES, Attack, make_hostile
from tests.siege.recipes import Kind, Recipe, make, make_srpm, pick
from tests.siege.shape import Shape
from tests.siege.timeline import Timeline
from tests.siege.watcher import Watcher

_CANCELLED_SHARE = 0.15
_STILL_THERE_SHARE = 0.7
_RETRIED_SHARE = 0.5  # the share of ended builds that may be retried
_AGAIN_SHARE = 0.12  # the share of others whose build step runs again after a success, and makes other packages
_HOSTILE_EVERY = 4  # one of as many
_PAUSE_S = 0.5
_TICK_S = 0.1


@dataclass(kw_only=True)
class Asked:
    """One package, what was asked about it, and what the farm answered. `outcomes` are those it may have.

    `ids` are builds that the farm said it has, `raised` how often it said that it has not.
    """

    recipe: Recipe
    outcomes: set[str]
    ids: list[int] = field(default_factory=list)
    raised: int = 0
    cancel_at: float | None = None
    may_retry: bool = False
    retried: int = 0


class Stream(threading.Thread):
    """`asked` may be read while it runs. It ends after `stop` was set and what was begun is done."""

    def __init__(
        self, shape: Shape, settings: Settings, folder: Path, rng: random.Random, timeline: Timeline, watcher: Watcher
    ) -> None:
        super().__init__(name="stream", daemon=True)
        self.asked: list[Asked] = []
        self.stop = threading.Event()
        self.failure: BaseException | None = None
        self._shape = shape
        self._settings = settings
        self._folder = folder
        self._rng = rng
        self._timeline = timeline
        self._watcher = watcher
        self._farm: Farm | None = None
        self._attacks = list(ORDER)

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self._enqueue(self._next())
                self._pass_time(self._rng.uniform(*self._shape.enqueue_every_s))
            while any(one.cancel_at is not None for one in self.asked):
                self._pass_time(_TICK_S)
        except BaseException as error:
            self.failure = error
        finally:
            self._forget_farm()

    def first(self) -> Asked:
        """Build one package without wounds, which makes the build root. Call it before `start`."""
        recipe = make(0, Kind.NOARCH, self._rng, longest_s=self._shape.longest_build_s)
        self._folder.mkdir()
        one = Asked(recipe=recipe, outcomes={recipe.outcome})
        self._enqueue(one)
        return one

    @property
    def enqueued(self) -> int:
        return sum(len(one.ids) for one in self.asked)

    # --- what is asked ------------------------------------------------------------------------------------------

    def _next(self) -> Asked:
        number, longest_s = len(self.asked), self._shape.longest_build_s
        if number % _HOSTILE_EVERY == 1 and (hostile := self._next_hostile(number)) is not None:
            return hostile
        chance = self._rng.random()
        if chance < _CANCELLED_SHARE:
            # Mostly one that is still there when the cancel comes.
            sleeps = self._rng.random() < _STILL_THERE_SHARE
            kind = Kind.SLEEPS if sleeps else Kind.NOARCH
            recipe = make(number, kind, self._rng, longest_s=longest_s)
            one = Asked(recipe=recipe, outcomes={recipe.outcome})
            one.cancel_at = time.monotonic() + self._rng.uniform(0.0, longest_s / 2)
            one.may_retry = self._rng.random() < _RETRIED_SHARE
            return one
        recipe = pick(number, self._rng, longest_s=longest_s)
        can_retry = chance < _CANCELLED_SHARE + _AGAIN_SHARE or recipe.kind is Kind.FAILS
        may_retry = can_retry and recipe.outcome in ("succeeded", "failed") and self._rng.random() < _RETRIED_SHARE
        return Asked(recipe=recipe, outcomes={recipe.outcome}, may_retry=may_retry)

    def _next_hostile(self, number: int) -> Asked | None:
        """In turn; one that requires another when that is published. None while none can be had."""
        for attack in self._attacks:
            wanted = REQUIRES.get(attack)
            there = self._published(wanted) if wanted is not None else [""]
            if there:
                self._attacks.remove(attack)
                self._attacks.append(attack)
                recipe = make_hostile(number, attack, self._rng, requires=self._rng.choice(there))
                return Asked(recipe=recipe, outcomes={recipe.outcome})
        return None

    def _published(self, attack: Attack) -> list[str]:
        """Names of the packages of this kind that are in the repository."""
        found = []
        for one in self.asked:
            if one.recipe.kind is attack and one.ids:
                try:
                    build = self._connected().build(one.ids[-1])
                except FarmError:
                    self._forget_farm()
                    continue
                if build.outcome is Outcome.SUCCEEDED:
                    found.append(one.recipe.name)
        return found

    def _enqueue(self, one: Asked) -> None:
        self.asked.append(one)
        path = make_srpm(one.recipe, self._folder)
        while (build := self._try_enqueue(one, path)) is None:
            time.sleep(_PAUSE_S)
        one.ids.append(build)
        self._timeline.add("stream", f"enqueued {one.recipe.name} as {build}", frozenset({build}))
        path.unlink()
        shutil.rmtree(self._folder / one.recipe.name, ignore_errors=True)

    def _try_enqueue(self, one: Asked, path: Path) -> int | None:
        """The build; None where the farm said that it has none."""
        try:
            handle = self._connected().enqueue(
                srpm=path,
                target="demo",
                arches=["x86_64"],
                timeout_s=one.recipe.timeout_s,
                limits=one.recipe.limits or None,
                owner=OWNER if one.recipe.is_hostile else None,
            )
            return handle.id
        except FarmError as error:
            one.raised += 1
            self._timeline.add("stream", f"enqueue of {one.recipe.name} was refused: {error}")
            self._forget_farm()
            return None

    def _pass_time(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            for one in self.asked:
                if one.cancel_at is not None and now >= one.cancel_at and one.ids:
                    one.cancel_at = None
                    self._cancel(one)
                elif one.may_retry and one.cancel_at is None and one.ids and not self.stop.is_set():
                    self._retry(one)
            if now >= until:
                return
            time.sleep(_TICK_S)

    def _cancel(self, one: Asked) -> None:
        """A cancel that raised may have been written all the same, so it may have either outcome then."""
        build = one.ids[-1]
        was_refused = False
        while True:
            try:
                labels = self._watcher.running(build)
                self._connected().cancel(build)
            except WrongState:
                if was_refused:
                    one.outcomes |= {Outcome.CANCELLED.value}
                self._timeline.add("stream", f"cancel of {build} came too late", frozenset({build}))
                one.may_retry = False
                return
            except FarmError as error:
                was_refused = True
                self._timeline.add("stream", f"cancel of {build} was refused: {error}", frozenset({build}))
                self._forget_farm()
                time.sleep(_PAUSE_S)
            else:
                one.outcomes = {Outcome.CANCELLED.value}
                self._timeline.add("stream", f"cancelled {build}", frozenset({build}))
                self._watcher.expect_gone(labels)
                return

    def _retry(self, one: Asked) -> None:
        """Retry a build that is over: all of it if it succeeded, else the steps that did not succeed."""
        build = one.ids[-1]
        try:
            farm = self._connected()
            found = farm.build(build)
            if found.status is not Status.FINISHED:
                return
            if found.outcome is Outcome.SUCCEEDED:
                farm.retry(build, step="build", arch="x86_64")
            else:
                farm.retry(build)
        except FarmNotRunning:
            # Whether it was written is not known: both are right then, and another try may find it under way.
            one.outcomes |= {one.recipe.outcome}
            one.retried += 1
            self._forget_farm()
            return
        except WrongState:
            one.may_retry = False
            return
        one.may_retry = False
        one.retried += 1
        one.outcomes = {one.recipe.outcome}
        self._timeline.add("stream", f"retried {build} after it {found.outcome}", frozenset({build}))

    def _connected(self) -> Farm:
        if self._farm is None:
            self._farm = Farm.connect(self._settings)
        return self._farm

    def _forget_farm(self) -> None:
        if self._farm is not None:
            farm, self._farm = self._farm, None
            farm.close()

"""How often, and after which delay, a step is tried again after trouble of the farm."""

from dataclasses import dataclass
from datetime import timedelta

#: The longest time that a step waits after trouble.
PUT_OFF_AT_MOST = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """A step with farm trouble is tried again `max_troubles` times, after `delay_s`, then three times as long, and so
    on, up to an hour.

    A step that lost `max_deaths` workers in all, in a row or not, is not tried again: it would kill another one.
    Workers may hand a step back `max_hand_backs` times; each further time is trouble.
    """

    max_troubles: int
    delay_s: float
    max_deaths: int = 3
    max_hand_backs: int = 5

    def delay(self, troubles: int) -> timedelta:
        return min(timedelta(seconds=self.delay_s * 3 ** min(troubles, 20)), PUT_OFF_AT_MOST)

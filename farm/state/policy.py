"""How often, and after which delay, a step is tried again after trouble of the farm."""

from dataclasses import dataclass
from datetime import timedelta

#: The longest that a step waits after trouble.
PUT_OFF_AT_MOST = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Farm trouble is tried again `max_troubles` times, after `delay_s`, then three times as long, and so on, up to
    an hour.

    A step that lost `max_deaths` workers, whatever else came in between, is not given another one to kill.
    """

    max_troubles: int
    delay_s: float
    max_deaths: int = 3

    def delay(self, troubles: int) -> timedelta:
        return min(timedelta(seconds=self.delay_s * 3 ** min(troubles, 20)), PUT_OFF_AT_MOST)

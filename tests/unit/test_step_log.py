"""The log of an attempt: its index of the times of lines."""

import itertools
from pathlib import Path

from workers.core.log import MAX_STAMPS, StepLog


def test_the_times_of_a_long_step_have_a_bound_and_still_reach_from_its_start_to_its_end(tmp_path: Path) -> None:
    seconds = itertools.count(0.0, 0.1)
    with StepLog(tmp_path / "log", limit_bytes=10**9, clock=lambda: next(seconds)) as log:
        for _ in range(5 * MAX_STAMPS):
            log.write(b".")
            assert len(log.stamps) <= MAX_STAMPS
    assert log.stamps == sorted(log.stamps)
    assert len(log.stamps) > MAX_STAMPS / 2
    gaps_ms = [after[0] - before[0] for before, after in itertools.pairwise(log.stamps)]
    assert max(gaps_ms) < 2000
    assert log.stamps[0] == (100, 0)
    assert log.stamps[-1][0] > 5 * MAX_STAMPS * 100 - 2000


def test_each_write_of_a_short_step_has_its_time(tmp_path: Path) -> None:
    seconds = itertools.count(0.0, 1.0)
    with StepLog(tmp_path / "log", limit_bytes=1000, clock=lambda: next(seconds)) as log:
        log.write(b"one\n")
        log.write(b"two\n")
    assert log.stamps == [(1000, 0), (2000, 4)]

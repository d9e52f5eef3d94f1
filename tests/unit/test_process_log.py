"""The lines that each process of the farm logs: no field is missing, and a record is one line."""

import io
import logging
import re
from collections.abc import Iterator

import pytest

from farm import process_log

_log = logging.getLogger("farm.tests")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    for handler in before:
        root.removeHandler(handler)
    stream = io.StringIO()
    process_log.set_up("INFO", stream=stream)
    yield stream
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)


def test_a_line_has_the_time_the_level_the_logger_and_everything_of_extra(lines: io.StringIO) -> None:
    extra = {"action": "refused", "attempt": "1.fetch.1", "target": "demo", "slots": 3, "reason": "two words"}
    _log.warning("Target %s is unknown", "demo", extra=extra)
    words = "WARNING farm.tests: Target demo is unknown action=refused attempt=1.fetch.1 target=demo slots=3 "
    words += 'reason="two words"'
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{6}}Z {re.escape(words)}\n", lines.getvalue())


def test_records_below_the_level_are_left_out(lines: io.StringIO) -> None:
    _log.debug("not this", extra={"action": "x"})
    assert lines.getvalue() == ""


def test_a_strangers_words_make_no_line_and_move_no_cursor(lines: io.StringIO) -> None:
    _log.info("it said %s", "a\nWARNING farm: forged\x1b[2J", extra={"host": "b\nc"})
    assert lines.getvalue().endswith(r"it said a\nWARNING farm: forged\x1b[2J host=b\nc" + "\n")
    assert lines.getvalue().count("\n") == 1


def test_a_strangers_words_add_no_field_and_no_line_below(lines: io.StringIO) -> None:
    try:
        raise OSError("no\n2026-01-01T00:00:00Z ERROR farm: forged")
    except OSError:
        _log.exception("It broke", extra={"reason": 'x" owner="root'})
    first, *rest = lines.getvalue().splitlines()
    assert first.endswith(r'reason="x\" owner=\"root"')
    assert all(line.startswith("  ") for line in rest)


def test_a_traceback_comes_below_its_line(lines: io.StringIO) -> None:
    try:
        raise OSError("no\x1bdisk")
    except OSError:
        _log.exception("It broke", extra={"action": "guard"})
    first, *rest = lines.getvalue().splitlines()
    assert first.endswith("ERROR farm.tests: It broke action=guard")
    assert rest[0] == "  Traceback (most recent call last):"
    assert rest[-1] == r"  OSError: no\x1bdisk"


def test_a_process_of_a_pool_is_named_and_celerys_copy_of_its_message_is_not_there(lines: io.StringIO) -> None:
    record = logging.LogRecord("celery.app.trace", logging.INFO, __file__, 1, "Task %s succeeded", ("x",), None)
    record.processName = "ForkPoolWorker-2"
    record.data = {"kwargs": {"attempt": "1.fetch.1"}}
    logging.getLogger("celery.app.trace").handle(record)
    assert lines.getvalue().endswith("INFO ForkPoolWorker-2 celery.app.trace: Task x succeeded\n")


def test_a_second_set_up_does_not_say_everything_twice(lines: io.StringIO) -> None:
    process_log.set_up("INFO", stream=lines)
    _log.info("once")
    assert lines.getvalue().count("once") == 1

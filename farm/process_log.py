"""The log of a process of the farm: one set-up for all of them, on structlog's formatter for the standard library.

A line has the time in UTC, the level, the process of a pool, the logger, the sentence, and then everything that `extra`
brought as key=value. Line ends and control characters are escaped, so that a recipe's words cannot forge a line.
"""

import logging
import sys
import textwrap
from typing import IO, Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_MAIN_PROCESS = "MainProcess"
#: Celery adds a copy of the whole message to its own lines, which have its fields in their text already.
_CELERY_EXTRA = "data"

_BEFORE: tuple[Processor, ...] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%S.%fZ", utc=True),
    structlog.stdlib.ExtraAdder(),
)


def set_up(level: str, *, stream: IO[str] | None = None) -> None:
    """Every logger of this process writes to `stream`, standard error if there is none, in lines of this form.

    Safe to repeat: the first call holds. Raises ValueError for a level that logging does not know.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_BEFORE,
            processors=[
                _add_process,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _add_traceback,
                _line,
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler])


def _add_process(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    if record.processName not in (None, _MAIN_PROCESS):
        event["process"] = record.processName
    if record.name.startswith("celery"):
        event.pop(_CELERY_EXTRA, None)
    return event


#: An exception's text as Python prints it, below the line.
_add_traceback: Processor = structlog.processors.ExceptionRenderer()


def _line(_: WrappedLogger, __: str, event: EventDict) -> str:
    head = [event.pop("timestamp"), event.pop("level").upper()]
    if process := event.pop("process", None):
        head.append(process)
    texts = [str(event.pop(key)) for key in ("exception", "stack") if key in event]
    # Indented, so that a message with line ends of its own never looks like a line of the log.
    below = "".join("\n" + textwrap.indent(_printable(text, keep="\n\t"), "  ", lambda _: True) for text in texts)
    words = [f"{' '.join(head)} {event.pop('logger')}: {_printable(str(event.pop('event')))}"]
    words += [f"{key}={_value(value)}" for key, value in event.items() if value is not None]
    return " ".join(words) + below


def _value(value: Any) -> str:
    text = _printable(str(value))
    if '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if not text or " " in text or '"' in text else text


def _printable(text: str, *, keep: str = "") -> str:
    """Characters that are not printable, line ends among them, as Python escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text)

"""The last command of a script, as the shell traced it.

A recipe's output stands between the traces, and a trace can be glued to output that had no newline at its end.
"""

import re
from dataclasses import dataclass

from workers.formats.rpm.reason_likely import is_summary
from workers.formats.rpm.reason_lines import line_shown

_LAST_LINES = 2000  # the lines of output among which the trace of the last command is looked for
_LINE_BYTES = 1000
_SCRIPT_END = re.compile(r"exit\b|:$|RPM_EC=|jobs -p|(?:cat|tail) |set [+-]")
TRACE = re.compile(r"(?P<depth>\++) (?P<command>\S.*)")
#: A trace after output that had no newline at its end.
_GLUED = re.compile(r"(?<!\+)(?P<depth>\+) (?P<command>[a-z_./\[][\w./-]{1,100} .*)")
TRACE_WITHIN = re.compile(r"\++ \S")
_PRINTS = re.compile(r"(?:echo|printf)\b")
_TESTS = re.compile(r"(?:test|\[\[?|grep -q|cmp -s) ")
_ASSIGNS = re.compile(r"\w+=")


@dataclass(frozen=True, kw_only=True)
class Last:
    """The last command of a script, the place of its trace, and its last line of output."""

    at: int
    output: str
    command: str

    @property
    def prints(self) -> bool:
        return bool(self.output) and _PRINTS.match(self.command) is not None

    @property
    def is_silent_test(self) -> bool:
        """Whether it is a test that failed, for which no message is needed."""
        return not self.output and _TESTS.match(self.command) is not None


def last_command(text: bytes, start: int, end: int) -> Last:
    """The last command whose trace is between `start` and `end`; with an empty `command` if there is none."""
    output, about, fallback, at = "", "", "", end
    for _ in range(_LAST_LINES):
        line_end = at - 1
        if line_end < start:
            break
        at = max(text.rfind(b"\n", start, line_end) + 1, start)
        line = line_shown(text[at : min(line_end, at + _LINE_BYTES)]).strip()
        trace = TRACE.match(line) or _GLUED.search(line)
        if trace is None:
            if not output and not line.startswith(("Executing(", "RPM build ", "[farm] ")):
                about = about or line
                output = "" if is_summary(line) else line
            continue
        command = _unquoted(trace["command"])
        if _SCRIPT_END.match(command):
            output = output or line[: trace.start()].strip()
            continue
        if _ASSIGNS.match(command) or (len(trace["depth"]) > 1 and not fallback):
            # An assignment fails with the command whose output it assigns, which the shell traced before it.
            fallback = fallback or command
            continue
        return Last(at=at, output=output or about, command=command)
    output = output or about
    return Last(at=at if output else start, output=output, command=fallback)


def _unquoted(command: str) -> str:
    """bash quotes the brackets of a test in its traces."""
    return command.replace("'['", "[").replace("']'", "]")

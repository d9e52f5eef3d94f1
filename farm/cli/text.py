"""Text for people: escapes hostile text, and has a colour for each state. It does not depend on a terminal."""

from farm.model.outcome import Outcome, Status
from farm.model.text import printable

#: A colour per state, for terminals that have them.
STYLES: dict[Status | Outcome, str] = {
    Status.WAITING: "dim",
    Status.READY: "dim",
    Status.DISPATCHED: "cyan",
    Status.RUNNING: "bold cyan",
    Status.FINISHED: "",
    Outcome.SUCCEEDED: "green",
    Outcome.UNCHANGED: "green",
    Outcome.EXCLUDED: "dim",
    Outcome.CANCELLED: "yellow",
    Outcome.UNRESOLVABLE: "red",
    Outcome.FAILED: "red",
    Outcome.STALLED: "red",
    Outcome.TIMED_OUT: "red",
    Outcome.OVER_LIMIT: "red",
    Outcome.ERRORED: "bold magenta",
}


def clean(text: str | None) -> str:
    """The text on one line; characters that do not print are escaped, so that a terminal obeys none."""
    return printable(text or "")


def clean_lines(text: str) -> str:
    """The same for text of several lines; tabs stay."""
    return printable(text, keep="\n\t")

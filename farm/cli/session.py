"""The session of a command: the farm, the terminal, and the choice of JSON. It imports the farm on first use."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import typer

from farm.cli.streams import discard
from farm.config import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from farm.client import FarmApi

FORMAT = 1  # the format of every --json document; docs/json.md says how it may change
_PIPE_COLUMNS = 10_000  # output for a program is neither cut nor wrapped


@dataclass
class Session:
    """One run of the command line, found through the root context."""

    is_json: bool = False


def session(ctx: typer.Context) -> Session:
    return ctx.find_root().ensure_object(Session)


def emit(document: dict[str, Any]) -> None:
    """Print one JSON document to standard output, in ASCII, so that it cannot move a cursor."""
    print(json.dumps({"format": FORMAT, **document}, indent=2))  # noqa: T201 - this is the command line


@cache
def console() -> "Console":
    """Standard output. Markup and emoji codes in printed text have no effect, since names are untrusted text."""
    from rich.console import Console

    from farm.cli.text import clean_lines

    class PipeConsole(Console):
        def print(self, *objects: Any, **more: Any) -> None:
            """A server of another owner may have written the text, so no terminal obeys it."""
            super().print(*(clean_lines(one) if isinstance(one, str) else one for one in objects), **more)

        def on_broken_pipe(self) -> None:
            """Rich would end the process with code 1; the command line ends it as other programs do."""
            raise BrokenPipeError

    is_terminal = sys.stdout.isatty()
    return PipeConsole(
        markup=False, emoji=False, highlight=False, soft_wrap=False, width=None if is_terminal else _PIPE_COLUMNS
    )


def answer(document: dict[str, Any], undo: str, words: str, *, is_json: bool) -> None:
    """Print the answer of a command that changed something, with the command that undoes it."""
    from farm.cli.text import clean

    if is_json:
        emit(document | {"undo": undo})
        return
    console().print(words, soft_wrap=True)
    if undo:
        console().print(f"  undo  {clean(undo)}", soft_wrap=True)


def say(text: str) -> None:
    """Print a remark to standard error, beside the answer."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is the command line
    except OSError:  # a broken pipe or a full disk: a remark that cannot be written must not end the command
        discard(sys.stderr)


@contextmanager
def connected() -> Iterator["FarmApi"]:
    """The farm of this environment's settings: at its server if FARM_URL is set."""
    settings = Settings.from_env()
    if settings.log_level.upper() == "DEBUG":  # otherwise warnings go to standard error unchanged
        from farm import process_log

        process_log.set_up("DEBUG")
    with _connect(settings) as farm:
        yield farm


def _show_upload(name: str, done: int, of: int) -> None:
    from farm.cli.progress import show_upload

    show_upload(name, done, of)


def _connect(settings: Settings) -> "FarmApi":
    if settings.url:
        from farm.client.remote import RemoteFarm

        return RemoteFarm.connect(settings.url, token_file=settings.token_file, progress=_show_upload)
    from farm.client import Farm

    return Farm.connect(settings)

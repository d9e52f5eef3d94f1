"""`farm up`: the embedded farm in the foreground."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from farm.config import Settings
from farm.extensions import load_extensions
from farm.up.embedded import Embedded, running_farm


def up(data: Path | None, workers: int | None) -> None:
    """Run until a signal. The first signal drains; the second stops at once, and the next start retries the stopped
    steps.
    """
    settings = Settings.from_env()
    load_extensions()  # before anything starts: each process would end with the same error
    if data is not None:
        settings = replace(settings, data=data)
    console, stderr = Console(highlight=False), Console(highlight=False, stderr=True)

    def say(what: str) -> None:
        console.print(f"[dim]starting {what}[/dim]")

    def warn(what: str) -> None:
        stderr.print(what, markup=False, soft_wrap=True)

    farms = running_farm(settings, build_slots=workers, serves_commands=True, say=say, warn=warn)
    with _signals() as stop, farms as farm:
        _welcome(console, farm)
        while not stop.wait(1.0):
            farm.check()
        console.print(
            "Draining: running steps are finished, no new ones start. Ctrl-C again stops at once.", soft_wrap=True
        )
    console.print("Stopped.")


def _welcome(console: Console, farm: Embedded) -> None:
    data = farm.settings.data
    default = Settings.from_env({}).data
    say = partial(console.print, soft_wrap=True)
    say(f"\nThe farm is up. Data: {data}   Logs: {data / 'log'}   Flower: {farm.flower_url}")
    if farm.server_url:
        say(f"Pages and HTTP: {farm.server_url}; log in with a token, which `farm token new --role ROLE` makes")
    if data != default:
        say(f"In another terminal: export FARM_DATA={data}")
    say("Then: farm targets, farm build --git URL --target NAME --arch ARCH --wait, farm status. Ctrl-C drains.\n")


@contextmanager
def _signals() -> Iterator[threading.Event]:
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

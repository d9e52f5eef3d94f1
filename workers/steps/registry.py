"""The function that each step type runs on a worker. A new step type is a module beside this one and a line here, or a
module that FARM_EXTENSIONS names and that calls `register`.
"""

from collections.abc import Callable
from typing import Any

from farm.errors import NotFound
from farm.extensions import load_extensions
from farm.model.local import ShellRequest
from farm.steps.build import BUILD
from farm.steps.fetch import FETCH
from farm.steps.logs import LOGS
from farm.steps.srpm import SRPM
from farm.steps.upload import UPLOAD
from workers.core.context import StepContext
from workers.formats.base import BuildRequest, SourceRequest
from workers.steps import build, fetch, logs, srpm, upload

#: Takes the work and the context of an attempt, and returns the result of the step.
Run = Callable[[Any, StepContext], Any]

_RUNS: dict[str, Run] = {
    FETCH.name: fetch.run,
    SRPM.name: srpm.run,
    BUILD.name: build.run,
    UPLOAD.name: upload.run,
    LOGS.name: logs.run,
}

#: Makes the format's request of a recorded attempt again, from its ShellRequest and a new context.
Again = Callable[[ShellRequest, StepContext], SourceRequest | BuildRequest]

_AGAIN: dict[str, Again] = {SRPM.name: srpm.asked_again, BUILD.name: build.asked_again}


def find_again(name: str) -> Again:
    """Raises NotFound for a step type whose root cannot be made again."""
    if name not in _AGAIN:
        raise NotFound(f"the root of a {name} step cannot be made again; steps whose root can are {', '.join(_AGAIN)}")
    return _AGAIN[name]


def register(name: str, run: Run) -> None:
    """Raises ValueError for a step type that is registered already."""
    if name in _RUNS:
        raise ValueError(f"the step type {name!r} is run by {_RUNS[name].__module__} already")
    _RUNS[name] = run


def find_run(name: str) -> Run:
    """Raises ValueError for a step type that this worker cannot run."""
    load_extensions()
    if name not in _RUNS:
        raise ValueError(f"this worker cannot run a {name[:64]!a} step; FARM_EXTENSIONS names extensions")
    return _RUNS[name]

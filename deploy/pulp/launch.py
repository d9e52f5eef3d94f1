"""Runs one of Pulp's commands so that all that it forks dies with it. Executed by Pulp's own Python.

A killed gunicorn master leaves workers that hold its port until they look for their parent, up to 45 s later.

Pulp's worker forks a process for each task, and each of them would read all addresses of Pulp's API again, to write one
of them into its result: half a second of processor time, most of that of a small task. The parent reads them once.
"""

import contextlib
import ctypes
import functools
import gc
import importlib
import os
import runpy
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_FORKING = ("pulpcore-api", "pulpcore-worker")
_libc = ctypes.CDLL(None)


def _follow_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


@functools.cache
def _read_addresses() -> None:
    """Before the first fork: what is read then is there in each process that is forked."""
    urls = importlib.import_module("django.urls")  # Pulp's own environment has it
    with contextlib.suppress(urls.NoReverseMatch):
        urls.reverse("no such name")
    with contextlib.suppress(urls.Resolver404):
        urls.resolve("/no/such/path")
    # A collection in a forked process would copy all that it shares with its parent.
    gc.freeze()


os.register_at_fork(after_in_child=_follow_parent)
sys.argv = sys.argv[1:]
if Path(sys.argv[0]).name in _FORKING:
    os.register_at_fork(before=_read_addresses)
runpy.run_path(sys.argv[0], run_name="__main__")

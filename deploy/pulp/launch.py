"""Runs one of Pulp's commands so that all that it forks dies with it. Executed by Pulp's own Python.

A killed gunicorn master leaves workers that hold its port until they look for their parent, up to 45 s later.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _follow_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


os.register_at_fork(after_in_child=_follow_parent)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")

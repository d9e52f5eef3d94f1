"""The promises of tests/conftest.py to every test."""

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import _FIRST

_ROOT = Path(__file__).parents[2]
_IN_CONFTEST = """
import signal, subprocess, sys
assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
import tests.conftest
child = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
subprocess.run([sys.executable, "-c", child], check=True)
"""


def test_commands_can_be_interrupted_although_the_suite_was_started_with_sigint_ignored() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'trap \'\' INT; exec "$0" -c "$1"', sys.executable, _IN_CONFTEST],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_this_process_can_be_interrupted() -> None:
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def test_the_longest_groups_of_tests_are_begun_first(pytestconfig: pytest.Config) -> None:
    assert not getattr(pytestconfig.option, "loadscopereorder", False), "pytest-xdist has an order of its own"
    groups = {"pulp", "pulp-repositories", *(path.stem for path in (_ROOT / "tests").rglob("test_*.py"))}
    assert set(_FIRST) <= groups


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest would import one of them alone, and end the collection of the whole suite at the other."""
    names = Counter(path.name for path in (_ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []

"""A foreign arch that this machine can build for in an emulator, and who asks for it where it cannot."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from farm.model.arch import Arch
from tests import distribution
from workers.isolation.emulator import emulator_problem

FOREIGN = Arch.AARCH64


def need_distribution() -> Path:
    """The distribution of the foreign arch. Skips where it cannot be had; fails instead where CI is set."""
    try:
        return distribution.demo_distribution(FOREIGN)
    except RuntimeError as error:
        _lacks(str(error))


def need_emulator() -> None:
    """The distribution of the foreign arch; skips or fails as `need_distribution`."""
    if problem := emulator_problem(FOREIGN):
        _lacks(f"{problem}; run deploy/bootstrap emulators")
    need_distribution()


def _lacks(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)

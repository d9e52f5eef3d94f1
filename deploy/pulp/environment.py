"""Pulp's own virtual environment: made once for a set of pinned packages, and kept.

Owns the installation and its key. Does not start Pulp.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from plumbum import local

from deploy.demo.stamp import digest, is_current, locked, replacing
from deploy.pulp.errors import PulpError
from deploy.pulp.processes import run

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
PACKAGES = ("pulpcore", "pulp-rpm", "pulp-cli")
_INSTALL_WITHIN_S = 900.0

Say = Callable[[str], None]


def identity() -> str:
    """The key of the packages that would be installed."""
    return digest([CONSTRAINTS], *PACKAGES, sys.version)[:16]


def make(cache: Path, *, say: Say) -> Path:
    """The environment's folder in the cache, made when it is not there. Safe when several make it at once.

    Raises PulpError.
    """
    key = identity()
    folder = cache / key / "venv"
    with locked(folder.parent):
        if not is_current(folder, key):
            say(f"installing Pulp into {folder}")
            with replacing(folder, key) as fresh:
                _install(fresh)
    return folder


def _install(folder: Path) -> None:
    uv = str(_find_uv())
    # It becomes `folder` by a rename, so its scripts must not say where they are.
    argv = [uv, "venv", "--quiet", "--allow-existing", "--relocatable", "--python", sys.executable, str(folder)]
    run(argv, env={}, cwd=folder, timeout_s=_INSTALL_WITHIN_S)
    # Without compiled files the first start of each of five processes would compile them again.
    argv = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(folder / "bin/python")]
    argv += ["--constraint", str(CONSTRAINTS), *PACKAGES]
    run(argv, env={}, cwd=folder, timeout_s=_INSTALL_WITHIN_S)


def _find_uv() -> Path:
    """The uv that the Makefile installs beside this Python, or any on PATH."""
    for place in (Path(sys.executable).with_name("uv"), Path(shutil.which("uv", path=local.env.get("PATH")) or "")):
        if place.is_file():
            return place
    raise PulpError(f"uv is not installed beside {sys.executable} or on PATH: run `make`, or pip install uv")

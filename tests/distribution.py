"""The demo distribution for tests and bench: made once, and kept in the user's cache."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from farm.model.arch import Arch

ROOT = Path(__file__).parent.parent
_MAKE_TIMEOUT_S = 1800


def demo_distribution(arch: Arch = Arch.X86_64) -> Path:
    """The folder with <arch>/repodata: FARM_TEST_DISTRIBUTION, or one that is made when it is not there yet.

    Raises RuntimeError, with the last words of the tool, when it can neither be found nor made.
    """
    if given := os.environ.get("FARM_TEST_DISTRIBUTION"):
        if not (Path(given) / arch / "repodata/repomd.xml").is_file():
            raise RuntimeError(f"FARM_TEST_DISTRIBUTION={given} has no {arch}/repodata; make it or unset the variable")
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farm-tests/distribution"
    command = [sys.executable, "-m", "deploy.demo.distribution", "--arch", arch, "--output", str(cache)]
    cache.parent.mkdir(parents=True, exist_ok=True)
    with cache.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests may run in several processes
        made = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_MAKE_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    if made.returncode:
        raise RuntimeError(f"the demo distribution cannot be made: {made.stderr[-500:]}")
    return cache

"""Bare `rpmbuild --rebuild` on the host: what everything is measured against. No root, no farm."""

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from plumbum import local

_ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}


def rebuild(srpm: Path, topdir: Path) -> float:
    """Seconds of one rebuild with a top directory of its own, which is made before and removed after the clock."""
    topdir.mkdir(parents=True)
    # The database is beside it and is kept, as a host's is: a new one would cost more than the build.
    defines = ["--define", f"_topdir {topdir}", "--define", f"_dbpath {topdir.parent / 'rpmdb'}", "--nodeps"]
    start = time.monotonic()
    # By full path and with an environment of its own: the engine has emptied plumbum's.
    local["/usr/bin/rpmbuild"]["--rebuild", "--quiet", *defines, str(srpm)].run(stdin=None, env=_ENVIRONMENT)
    seconds = time.monotonic() - start
    if not list(topdir.glob("RPMS/*/*.rpm")):
        raise RuntimeError(f"bare rpmbuild made nothing of {srpm}")
    shutil.rmtree(topdir)
    return seconds


def rebuild_all(srpms: Sequence[Path], topdir: Path, *, at_once: int) -> float:
    start = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda pair: rebuild(pair[1], topdir / str(pair[0])), enumerate(srpms)))
    return time.monotonic() - start

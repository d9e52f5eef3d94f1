"""Measures the start of `farm try`, warm: from typing it to the first command of the recipe, over bare rpmbuild's."""

import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from plumbum import local

from farm.config import Settings
from tests.bench.load import _ENVIRONMENT

_ROUNDS = 7
_SPEC = """Name: starts
Version: 1
Release: 1
Summary: Says when it starts
License: MIT
BuildArch: noarch
%description
Says when it starts.
%prep
echo started=$(date +%s%N)
%files
"""
_STARTED = re.compile(r"^started=(\d+)$", re.MULTILINE)


def figures(settings: Settings, folder: Path) -> dict[str, object]:
    """Medians in milliseconds, and the median of the ratios of pairs. The first time, which makes the template, does
    not count."""
    tree = folder / "starts"
    tree.mkdir(parents=True)
    (tree / "starts.spec").write_text(_SPEC)
    git = local["git"]["-C", str(tree), "-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "Import"]):
        git[words].run(stdin=None)
    farm = [str(Path(sys.executable).with_name("farm")), "try", str(tree), "-t", "demo", "--results", str(folder / "r")]
    rpmbuild = ["rpmbuild", "-bb", "--define", f"_topdir {folder / 'bare'}", str(tree / "starts.spec")]
    _start_ms(farm, settings)
    pairs = []
    for number in range(_ROUNDS):
        (tree / "change").write_text(str(number))  # as a person does between two times
        pairs.append((_start_ms(rpmbuild, settings), _start_ms(farm, settings)))
    bare_ms, try_ms = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "try_start_ms": round(try_ms),
        "bare_start_ms": round(bare_ms),
        "try_start_over_bare": round(statistics.median(one / bare for bare, one in pairs), 1),
    }


def _start_ms(argv: Sequence[str], settings: Settings) -> float:
    before = time.time_ns()
    data = {"FARM_DATA": str(settings.data)}
    _, out, _ = local[argv[0]][argv[1:]].run(stdin=None, env={**_ENVIRONMENT, "HOME": "/root", **data})
    found = _STARTED.search(out)
    if found is None:
        raise RuntimeError(f"{argv[0]} ran no recipe: {out[-1000:]}")
    return (int(found[1]) - before) / 1e6

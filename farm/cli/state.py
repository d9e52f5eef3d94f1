"""The state of the installed code, by which a command and the fork server find out whether they are the same version.

Imports nothing that takes long.
"""

import os
import sys
from collections.abc import Iterator

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib takes long


def code_state() -> str:
    """A text that changes with each installation of the farm, of a package that it uses, or of Python.

    It has the size and the time of change of each of the farm's files, and those of the folders that packages are
    installed in, which change when one is installed or removed.
    """
    how = (sys.version, sys.prefix, sys.flags.optimize, sys.flags.dev_mode, sys.getfilesystemencoding())
    options = (sys.warnoptions, sorted(sys._xoptions.items()))  # noqa: SLF001 - documented under this name
    folders = [_folder(path) for path in sys.path[1:]]
    return repr((*how, *options, _stamp(sys.executable), folders, sorted(_files(_PACKAGE))))


def _files(folder: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == "__pycache__":
                continue
            if entry.is_dir():
                yield from _files(entry.path)
            else:
                found = entry.stat()
                yield entry.path, found.st_mtime_ns, found.st_size


def _folder(path: str) -> tuple[str, int]:
    # A path of the source tree changes with each cache that a tool leaves there, and its files are looked at.
    is_source_tree = _stamp(f"{path}/pyproject.toml") != 0
    return path, 0 if is_source_tree else _stamp(path)


def _stamp(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0

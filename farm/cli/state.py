"""By what a command and a fork server find each other: the paths of sockets, and the state of the installed code, which
says whether both are the same version.

Imports nothing that takes long.
"""

import os
import sys
from collections.abc import Iterator

SOCKET = "commands.sock"
TRY, TRY_SOCKET = "try", "try.sock"
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib takes long
_WORKERS = os.path.join(os.path.dirname(_PACKAGE), "workers")  # noqa: PTH118, PTH120


def socket_path(name: str = SOCKET) -> str:
    """The socket of a fork server, in FARM_DATA or its default; as `Settings.data` has it."""
    env = os.environ  # noqa: TID251 - Settings take long to import
    if not (data := env.get("FARM_DATA")):
        home = env.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # noqa: PTH111 - nor pathlib
        data = "/var/lib/farm" if os.geteuid() == 0 else f"{home}/farm"
    return os.path.join(os.path.expanduser(data), name)  # noqa: PTH111, PTH118


def code_state(*, with_workers: bool = False) -> str:
    """A text that changes with each installation of the farm, of a package that it uses, or of Python.

    It has the size and the time of change of each of the farm's files, and those of the folders that packages are
    installed in, which change when one is installed or removed.
    """
    how = (sys.version, sys.prefix, sys.flags.optimize, sys.flags.dev_mode, sys.getfilesystemencoding())
    options = (sys.warnoptions, sorted(sys._xoptions.items()))  # noqa: SLF001 - documented under this name
    folders = [_folder(path) for path in sys.path[1:]]
    packages = (_PACKAGE, _WORKERS) if with_workers else (_PACKAGE,)
    files = [one for package in packages if _stamp(package) for one in _files(package)]
    return repr((*how, *options, _stamp(sys.executable), folders, sorted(files)))


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

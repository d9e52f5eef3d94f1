"""Leaves a fork server behind for the next `farm try`, so that it need not load its modules again."""

import socket
import sys
from contextlib import suppress
from pathlib import Path

from farm.cli.state import TRY, TRY_SOCKET, socket_path
from farm.config import Settings

is_fork = False  # set in a fork of a server, which is there then


def leave_server(settings: Settings) -> None:
    """Start the server in the background unless one listens already or FARM_TRY_WARM_S is 0. It gets FARM_DATA and that
    setting alone, has no terminal, and ends by itself. A failure costs the next `farm try` its head start, and nothing
    else."""
    path = Path(socket_path(TRY_SOCKET))
    if is_fork or settings.try_warm_s <= 0 or path.parent != settings.data or _is_served(path):
        return
    from plumbum import local

    env = {"PATH": "/usr/bin:/bin", "FARM_DATA": str(settings.data), "FARM_TRY_WARM_S": str(settings.try_warm_s)}
    with suppress(OSError), Path("/dev/null").open("r+b") as nothing:
        # It outlives this process.
        local[sys.executable]["-m", "farm.cli.forkserver", TRY].popen(
            env=env, cwd="/", stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
        connection.connect(str(path))
        return True
    return False

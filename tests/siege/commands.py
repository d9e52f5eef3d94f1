"""Running the host's own tools for the siege: ip, mount, losetup. Each with a deadline, none through a shell."""

import subprocess
from pathlib import Path

_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class CommandFailed(Exception):
    """A tool of the host refused. Its words are in the message."""


def run(*argv: str | Path, timeout_s: float = 30.0) -> str:
    """What it printed. Raises CommandFailed."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            env=_ENV,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(f"{' '.join(words)}: {error}") from error
    printed = done.stdout.decode(errors="backslashreplace")
    if done.returncode:
        raise CommandFailed(f"{' '.join(words)} ended with {done.returncode}: {printed.strip()[-500:]}")
    return printed

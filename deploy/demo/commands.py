"""Running host commands for the demo tools: argv lists, an empty environment, closed standard input.

Not the farm's runner: `deploy` may not import `workers`, and nothing here is hostile or long.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from plumbum import CommandNotFound, local

from deploy.demo.errors import DemoError

# The system's own directories come first: a pyenv or Conda shim must not answer for a packaging tool.
SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# apt and git reach the network through these; everything else of the caller's environment stays outside.
PASSED_ON = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
SHOWN_LINES = 15


def run(argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str = "") -> str:
    """Run a command to its end and return its standard output. Raises DemoError when it fails."""
    with _input(stdin) as source, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = _start(argv, cwd=cwd, env=env, stdin=source, stdout=output, stderr=errors)
        code = process.wait()
        if code != 0:
            raise _failure(argv, code, _text(errors) or _text(output))
        return _text(output)


def lines(argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield output lines as they come, both streams together. Raises DemoError at the end when the command failed."""
    with _input("") as source:
        process = _start(argv, cwd=cwd, env=env, stdin=source, stderr=MERGED)
        seen: list[str] = []
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            seen = [*seen[-SHOWN_LINES:], line]
            yield line
        code = process.wait()
        if code != 0:
            raise _failure(argv, code, "\n".join(seen))


# The value of subprocess.STDOUT; the module itself is plumbum's to use.
MERGED = -2


@contextmanager
def _input(text: str) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as source:
        source.write(text.encode())
        source.seek(0)
        yield source


def _start(argv: Sequence[str], *, cwd: Path | None, env: Mapping[str, str] | None, **streams: Any) -> Any:
    passed = {key: local.env[key] for key in PASSED_ON if key in local.env}
    clean = {"PATH": SEARCH_PATH, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    program = next((place for each in SEARCH_PATH.split(":") if (place := Path(each, argv[0])).exists()), None)
    try:
        command = local[str(program or argv[0])]
    except CommandNotFound as error:
        raise DemoError(f"{argv[0]} is not installed on this host: run deploy/bootstrap") from error
    return command.popen(list(argv[1:]), cwd=cwd and os.fspath(cwd), env={**clean, **passed, **(env or {})}, **streams)


def _failure(argv: Sequence[str], code: int, output: str) -> DemoError:
    tail = "\n".join(output.strip().splitlines()[-SHOWN_LINES:])
    return DemoError(f"{' '.join(argv)[:400]} failed with code {code}:\n{tail}")


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")

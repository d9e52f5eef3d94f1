"""Whether a repository will take packages: asked on the build host, of the same reader that publishes.

Owns the process in which hostile headers are parsed, and its bounds. Run as a module it is that process.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from farm.errors import BadRequest, RootTrouble
from farm.model.outcome import Outcome
from workers.run import CommandFailed, capture
from workers.steps.context import Ended, StepContext
from workers.steps.names import shown

_READY = "the reader is ready"
#: Of all of a build's packages together. A distribution's largest builds have a tenth of it.
XML_BYTES = 64 * 2**20
_MEMORY_BYTES = 2 * 2**30
_CPU_S = 300
_TIMEOUT_S = 900.0
_ANSWER_BYTES = 2**20
_TEXT_CHARS = 300
_KILLED_BY_OTHERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def check_publishable(paths: Sequence[Path], context: StepContext) -> None:
    """Raises Ended (failed) for packages that a repository would refuse, and for more metadata than one takes.

    Raises RootTrouble when the reader cannot be run, and LeaseLost.
    """
    names = context.workdir / "publishable"
    names.write_bytes(b"\0".join(os.fsencode(path) for path in paths))
    for path in paths:
        path.chmod(0o644)  # a recipe's own file, of one name; the reader has no right to files that are closed to it
    argv = [sys.executable, "-I", "-m", "workers.steps.publishable", str(names)]
    bounds = ["prlimit", f"--as={_MEMORY_BYTES}", f"--cpu={_CPU_S}", "--core=0", "--"]
    try:
        answer = capture(
            [*_sandboxed(context.workdir, paths), *bounds, *argv],
            cwd=Path("/"),
            timeout_s=_TIMEOUT_S,
            limit_bytes=_ANSWER_BYTES,
            stop=context.stop,
            shown=["the reader of packages"],
        )
    except CommandFailed as error:
        if _READY.encode() not in error.output or _signal_of(error) in _KILLED_BY_OTHERS:
            raise RootTrouble(
                f"packages cannot be checked: {error}; run deploy/bootstrap, or see the host's log"
            ) from error
        raise Ended(Outcome.FAILED, f"a package's header cannot be read: the reader {error.completed.shown}") from error
    finally:
        names.unlink(missing_ok=True)
    if reason := json.loads(answer)["refused"]:
        raise Ended(Outcome.FAILED, shown(reason, limit=600))


def _signal_of(error: CommandFailed) -> int | None:
    """A sandbox ends as a shell does when its command was killed: with 128 and the signal's number."""
    return error.completed.signal or (error.completed.code or 0) - 128


def _sandboxed(workdir: Path, packages: Sequence[Path] = ()) -> list[str | Path]:
    """Where it can be had: Python, the farm's code and the packages, read-only; no network and no capability. It is
    uid 0 of the host, so nothing else of the host is shown: no file, no socket, no setting of the kernel.
    """
    if os.geteuid() != 0 or shutil.which("bwrap") is None:
        return []
    words: list[str | Path] = ["bwrap", "--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib64", "lib32", "libx32"):
        if (path := Path("/", name)).exists():
            words += ["--symlink", path.readlink(), path] if path.is_symlink() else ["--ro-bind", path, path]
    for name in ("alternatives", "ld.so.cache", "rpm"):
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    code = (Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[2])
    for path in dict.fromkeys((*code, workdir, *(one.parent for one in packages if not one.is_relative_to(workdir)))):
        words += ["--ro-bind", path, path]
    words += [
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--ro-bind",
        "/proc/sys",
        "/proc/sys",
        "--unshare-pid",
        "--unshare-net",
    ]
    return [*words, "--unshare-ipc", "--die-with-parent", "--chdir", "/", "--cap-drop", "ALL", "--"]


def main(argv: Sequence[str]) -> None:
    """One JSON document: what is refused, or null."""
    from farm.repositories.metadata import entry_of

    sys.stderr.write(f"{_READY}\n")
    sys.stderr.flush()
    size_bytes = 0
    reason: str | None = None
    for path in Path(argv[0]).read_bytes().split(b"\0"):
        name = shown(os.fsdecode(path.rpartition(b"/")[2]), limit=_TEXT_CHARS)
        try:
            entry = entry_of(Path(os.fsdecode(path)), shown=f"the package {name!r}")
        except MemoryError:
            reason = f"the package {name!r} has a header that takes more than {_MEMORY_BYTES // 2**30} GiB to read"
            break
        except BadRequest as error:
            reason = str(error)
            break
        size_bytes += len(entry.primary) + len(entry.filelists) + len(entry.other)
        if size_bytes > XML_BYTES:
            reason = (
                f"the packages have more than {XML_BYTES // 2**20} MiB of metadata, which every user of the repository "
                "would download; give them fewer files, or shorter paths"
            )
            break
    sys.stdout.write(json.dumps({"refused": reason}))


if __name__ == "__main__":
    main(sys.argv[1:])

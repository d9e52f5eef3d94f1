"""Checks on the build host whether a repository would accept packages, with the same reader that publishes them.

Owns the process that parses hostile headers, and its bounds. workers/formats/rpm/package_reader.py runs there.
"""

import os
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import farm.errors
from farm.errors import RootTrouble
from farm.model.outcome import Outcome
from farm.model.target import Limits
from workers.core.context import Ended, StepContext
from workers.core.run import CommandFailed, capture
from workers.core.text import shown
from workers.formats.rpm.package_reader import READY, REFUSED, TAKEN
from workers.isolation import sandbox
from workers.isolation.confine import reader_confinement
from workers.isolation.sandbox import Bind

_READER = Path(__file__).absolute().with_name("package_reader.py")
_LIMITS = Limits(memory_bytes=2 * 2**30, processes=16, disk_bytes=2**20)
_CPU_S = 300
_TIMEOUT_S = 900.0
_FOLDERS_MAX = 64
_ANSWER_BYTES = 2**20
_KILLED_BY_OTHERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def check_publishable(paths: Sequence[Path], context: StepContext) -> None:
    """Raises Ended (failed) for packages that a repository would refuse, and for too much metadata.

    Raises RootTrouble when the reader cannot be run, and LeaseLost.
    """
    folders = sorted({path.parent for path in paths})
    if len(folders) > _FOLDERS_MAX:
        raise Ended(Outcome.FAILED, f"the packages are in {len(folders)} folders; at most {_FOLDERS_MAX} are allowed")
    inside = {folder: f"/packages/{number}" for number, folder in enumerate(folders)}
    names = context.workdir / "publishable"
    names.write_bytes(b"\0".join(os.fsencode(f"{inside[path.parent]}/{path.name}") for path in paths))
    names.chmod(0o644)
    for path in paths:
        path.chmod(0o644)  # a recipe's own file, without other hard links; the reader is another user
    for folder in folders:
        folder.chmod(0o755)
    binds = [Bind(path=folder, inside=place) for folder, place in inside.items()]
    try:
        answer = capture(
            _argv([*binds, Bind(path=names, inside="/names")], context),
            cwd=Path("/"),
            timeout_s=_TIMEOUT_S,
            limit_bytes=_ANSWER_BYTES,
            stop=context.stop,
            shown=["the reader of packages"],
        )
    except CommandFailed as error:
        if READY.encode() not in error.output or _signal_of(error) in _KILLED_BY_OTHERS:
            said = shown(error.output.decode(errors="replace")[-300:], limit=300)
            message = f"packages cannot be checked: {error} ({said}); all users must be able to read the farm's code"
            raise RootTrouble(message) from error
        raise Ended(Outcome.FAILED, f"a package's header cannot be read: the reader {error.completed.shown}") from error
    finally:
        names.unlink(missing_ok=True)
    if answer != TAKEN:
        reason = answer.removeprefix(REFUSED).decode(errors="replace") or "the reader of packages gave no reason"
        raise Ended(Outcome.FAILED, shown(reason, limit=600))


def _signal_of(error: CommandFailed) -> int | None:
    """The signal that killed the command: a sandbox ends as a shell does, with 128 plus the signal's number."""
    return error.completed.signal or (error.completed.code or 0) - 128


def _code_folders() -> list[str]:
    """The folders of the reader's modules. In a worker that Celery started, the package `farm` has no file of its own:
    Python finds it in two places, the current folder and the installation. createrepo_c is found and not imported: the
    reader uses it, in a process of its own."""
    library = find_spec("createrepo_c")
    files = (farm.errors.__file__, library.origin if library else None)
    return list(dict.fromkeys(str(Path(file).absolute().parent.parent) for file in files if file))


def _argv(binds: Sequence[Bind], context: StepContext) -> list[str]:
    """The command runs without the interpreter's site module, which takes longer than to read the headers."""
    modules = _code_folders()
    argv = [
        sys.executable,
        "-I",
        "-S",
        str(_READER),
        os.pathsep.join(modules),
        str(context.limits.metadata_bytes),
        "/names",
    ]
    # The soft limit has its own signal, so the reader's end is recognized; the hard limit kills, as others may do too.
    bounds = ["prlimit", f"--cpu={_CPU_S}:{_CPU_S + 5}", f"--as={_LIMITS.memory_bytes}", "--"]
    if os.geteuid() != 0:  # by hand, and in tests: this process cannot become another account
        *folders, names = binds
        pairs = [word for bind in folders for word in (bind.inside, str(bind.path))]
        return [*bounds, *argv[:-1], str(names.path), *pairs]
    confinement = reader_confinement(context.settings)
    code = {Path(folder) for folder in (*modules, sys.prefix, sys.base_prefix, str(_READER.parent))}
    shown_code = [Bind(path=folder, inside=str(folder)) for folder in sorted(code) if not folder.is_relative_to("/usr")]
    words = sandbox.reader([*bounds, *argv], confinement, binds=[*shown_code, *binds])
    return sandbox.enter(words, confinement, joins=(), limits=_LIMITS)

"""The tiny packages of tests/data as a test needs them: a folder, a src.rpm, a git repository.

Needs rpmbuild and git on PATH, and touches nothing outside the folder it is given: rpmbuild gets its own database,
home and top folder, git its own configuration. The first line of a spec tells the purpose of the package.
"""

import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

DATA = Path(__file__).parent / "data"
COMMIT_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_TOOL_TIMEOUT_S = 60


def package_dir(name: str) -> Path:
    """The folder with the package's spec and sources. Raises FileNotFoundError for a name that is not there."""
    folder = DATA / name
    if not folder.is_dir():
        raise FileNotFoundError(f"tests/data has no package {name!r}; it has {', '.join(sorted(package_names()))}")
    return folder


def package_names() -> tuple[str, ...]:
    """Every folder that has a spec of its own name."""
    return tuple(sorted(path.parent.name for path in DATA.glob("*/*.spec") if path.stem == path.parent.name))


def make_srpm(name: str, into: Path, *, defines: Sequence[tuple[str, str]] = ()) -> Path:
    """Build the package's src.rpm on this host, and put it into the folder `into`, which is made when missing.

    Two calls with the same `into` give the same bytes. Raises RuntimeError with rpmbuild's words for a refused spec.
    """
    source = package_dir(name)
    into.mkdir(parents=True, exist_ok=True)
    top = into / f".{name}.rpmbuild"
    macros = {
        "_topdir": top,
        "_sourcedir": source,
        "_specdir": source,
        "_srcrpmdir": top / "SRPMS",
        "_dbpath": top / "rpmdb",
        "_buildhost": "localhost",
        "use_source_date_epoch_as_buildtime": 1,
        "clamp_mtime_to_source_date_epoch": 1,
    }
    command = ["rpmbuild", "-bs", "--nodeps", str(source / f"{name}.spec")]
    for macro, value in (*macros.items(), *defines):
        command += ["--define", f"{macro} {value}"]
    try:
        _run(command, cwd=source, home=into)
        (made,) = (top / "SRPMS").glob("*.src.rpm")
        return made.rename(into / made.name)
    finally:
        shutil.rmtree(top, ignore_errors=True)


def make_git(name: str, into: Path, *, commit_at: datetime = COMMIT_AT) -> Path:
    """A git repository at `into/<name>` whose branch `main` has the package's files in one commit.

    The commit's id depends on the files and `commit_at` only. The path works as a URL, and so does `file://` before it.
    """
    repository = into / name
    shutil.copytree(package_dir(name), repository)
    git(repository, "init", "--quiet", "--initial-branch=main")
    commit_all(repository, f"Import {name}", commit_at=commit_at)
    return repository


def commit_all(repository: Path, message: str, *, commit_at: datetime = COMMIT_AT) -> str:
    """Commit everything in the work tree; the commit's id."""
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", message, commit_at=commit_at)
    return git(repository, "rev-parse", "HEAD")


def git(repository: Path, *words: str, commit_at: datetime = COMMIT_AT) -> str:
    """Run git in the repository with a fixed author, and without configuration. Returns its output, stripped."""
    stamp = commit_at.isoformat()
    person = {
        f"GIT_{role}_{part}": value
        for role in ("AUTHOR", "COMMITTER")
        for part, value in (("NAME", "A Maintainer"), ("EMAIL", "maintainer@example.org"), ("DATE", stamp))
    }
    return _run(["git", *words], cwd=repository, home=repository.parent, extra=person).strip()


def _run(command: Sequence[str], *, cwd: Path, home: Path, extra: dict[str, str] | None = None) -> str:
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "SOURCE_DATE_EPOCH": str(int(COMMIT_AT.timestamp())),
        **(extra or {}),
    }
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_TOOL_TIMEOUT_S,
        check=False,
    )
    printed = done.stdout.decode(errors="backslashreplace")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} ended with {done.returncode}:\n{printed}")
    return printed

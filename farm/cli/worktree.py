"""Warnings about a local work tree: a build takes a commit, and people may expect their last changes in it.

Asks git about the person's own tree, with the person's rights. Says nothing where git says nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from farm.cli.text import clean

_TIMEOUT_S = 20
_SHOWN = 5
_QUIET = ("--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")


def warnings(git: str, ref: str | None) -> tuple[str, ...]:
    """One line for each kind of change in the tree at this path that a build of the ref lacks; empty for a server."""
    folder = _folder(git)
    if folder is None:
        return ()
    branch = _asked(folder, "symbolic-ref", "--quiet", "--short", "HEAD").strip()
    upstream = _asked(folder, "rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}").strip()
    if ref and upstream and ref.removeprefix("refs/").removeprefix("remotes/") == upstream:
        count = _asked(folder, "rev-list", "--count", "@{upstream}..HEAD").strip()
        one = f"{count} commits of {clean(branch)} are not in {clean(upstream)} and are not built; push and fetch them"
        return (one,) if count not in ("", "0") else ()
    if ref not in (None, "HEAD", branch, f"heads/{branch}", f"refs/heads/{branch}"):
        return ()
    return _changes(_asked(folder, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames"))


def _changes(listed: str) -> tuple[str, ...]:
    entries = [(entry[:2], entry[3:]) for entry in listed.split("\0") if len(entry) > 3]
    changed = [name for state, name in entries if state != "??"]
    recipes = [name for state, name in entries if state == "??" and _is_recipe(name)]
    found = []
    if changed:
        found.append(f"changes that are not committed are not built: {_some(changed)}; commit them to build them")
    if recipes:
        found.append(f"git does not know {_some(recipes)}, which is not built; `git add` and commit it")
    return tuple(found)


def _is_recipe(name: str) -> bool:
    from farm.formats import registry

    return any(registry.format_of(one).recipe_problem(name) is None for one in registry.names())


def _folder(git: str) -> Path | None:
    """The top of the work tree; None for a URL of a server, and for a repository without a work tree."""
    if git.startswith("file://"):
        git = unquote(urlsplit(git).path)
    folder = Path(git).expanduser()
    return folder if "://" not in git and (folder / ".git").exists() else None


def _asked(folder: Path, *words: str) -> str:
    """git's answer; empty if git is not there, fails, or takes too long."""
    from plumbum import local
    from plumbum.commands.processes import CommandNotFound, ProcessTimedOut

    try:
        git = local["git"]["-C", str(folder.resolve()), *_QUIET, *words]
        code, out, _ = git.run(retcode=None, timeout=_TIMEOUT_S)
    except (CommandNotFound, ProcessTimedOut, OSError):
        return ""
    return str(out) if code == 0 else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(clean(name) for name in names[:_SHOWN]) + more

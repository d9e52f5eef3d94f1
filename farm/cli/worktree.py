"""Warnings about a local work tree: a build takes a commit, and people may expect their last changes in it.

Asks git about the person's own tree, with the person's rights. Says nothing where git says nothing. The tree may be a
stranger's, whose configuration names programs: git reads it only to name refs and folders, which starts none.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from farm.cli.text import clean
from farm.errors import BadSource
from farm.git_folder import check_work_tree

_TIMEOUT_S = 20
_SHOWN = 5
_QUIET = ("--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")

# Without the state of a submodule's own files: the submodule's configuration names programs too.
_STATUS = ("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=dirty")


def warnings(git: str, ref: str | None) -> tuple[str, ...]:
    """One line for each kind of change in the tree at this path that a build of the ref lacks; empty for a server."""
    folder = _folder(git)
    if folder is None:
        return ()
    try:
        check_work_tree(folder)
        return _warnings(folder, ref)
    except (BadSource, TimeoutError) as error:
        return (f"changes of the work tree are not looked for: {clean(str(error))}",)


def _warnings(folder: Path, ref: str | None) -> tuple[str, ...]:
    branch = _asked(folder, "symbolic-ref", "--quiet", "--short", "HEAD").strip()
    upstream = _asked(folder, "rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}").strip()
    if ref and upstream and ref.removeprefix("refs/").removeprefix("remotes/") == upstream:
        ends = _asked(folder, "rev-parse", "@{upstream}", "HEAD").split()
        count = _asked_apart(folder, "rev-list", "--count", f"{ends[0]}..{ends[1]}").strip() if len(ends) == 2 else ""
        one = f"{count} commits of {clean(branch)} are not in {clean(upstream)} and are not built; push and fetch them"
        return (one,) if count not in ("", "0") else ()
    if ref not in (None, "HEAD", branch, f"heads/{branch}", f"refs/heads/{branch}"):
        return ()
    return _changes(_asked_apart(folder, *_STATUS))


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


def _asked_apart(folder: Path, *words: str) -> str:
    """git's answer about the work tree from a repository for this question alone, which has the objects, the index and
    the HEAD of the person's, and none of its configuration; empty as with `_asked`."""
    asked = ("--absolute-git-dir", "--git-common-dir", "--show-object-format")
    said = _asked(folder, "rev-parse", *asked).split("\n")
    if len(said) < len(asked):
        return ""
    own, common, kind = Path(said[0]), (folder.resolve() / said[1]).resolve(), said[2]
    head = _asked(folder, "rev-parse", "--quiet", "--verify", "HEAD").strip()
    with tempfile.TemporaryDirectory(prefix="farm-git-") as made:
        apart = Path(made)
        for name in ("refs", "objects/info", "info"):
            (apart / name).mkdir(parents=True)
        (apart / "HEAD").write_text(f"{head or 'ref: refs/heads/main'}\n")
        extension = "[extensions]\n\tobjectformat = sha256\n" if kind == "sha256" else ""
        (apart / "config").write_text(f"[core]\n\trepositoryformatversion = {int(bool(extension))}\n{extension}")
        (apart / "objects/info/alternates").write_text(f"{common / 'objects'}\n")
        links = [(own / "index", "index"), (common / "shallow", "shallow"), (common / "info/exclude", "info/exclude")]
        for one, name in [*links, *((one, one.name) for one in own.glob("sharedindex.*"))]:
            if one.is_file():
                (apart / name).symlink_to(one)
        return _asked(folder, f"--git-dir={apart}", f"--work-tree={folder.resolve()}", *words)


def _asked(folder: Path, *words: str) -> str:
    """git's answer; empty if git is not there or fails. Raises TimeoutError."""
    from plumbum import local
    from plumbum.commands.processes import CommandNotFound, ProcessTimedOut

    try:
        git = local["git"]["-C", str(folder.resolve()), *_QUIET, *words]
        code, out, _ = git.run(retcode=None, timeout=_TIMEOUT_S)
    except ProcessTimedOut as error:
        raise TimeoutError(f"git {words[0]} takes longer than {_TIMEOUT_S} s") from error
    except (CommandNotFound, OSError):
        return ""
    return str(out) if code == 0 else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(clean(name) for name in names[:_SHOWN]) + more

"""A work tree as it is on the disk, as a commit: tracked files, and untracked ones that no rule ignores.

The commit is in a bare repository of its own, so that neither the index nor the objects of the person's repository
change. That repository has no filters and no conversion of line ends, and is in the person's `.git`, with its index,
so that only changed files are read again. All of it happens with the rights of the owner of the work tree, whose
configuration is used to find ignored files alone. The `fetch` step then reads the commit as any other.
"""

import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from farm.errors import BadSource
from farm.git_folder import check_file, check_own, check_work_tree
from farm.model.text import printable
from workers.core.run import CommandFailed, Ending, capture
from workers.core.users import User, acting_as, user
from workers.sources.git_config import ATTRIBUTES, SAFE, UNCONFIGURED, init_bare

_TIMEOUT_S = 600.0
_LOOK_TIMEOUT_S = 30.0  # for a look at the person's refs and configuration
_SHARED_INDEX = "sharedindex.*"
_LISTING_BYTES = 64 * 2**20
# Git need not wait for the disk: all that is here can be made again from the work tree.
_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n\tfsyncMethod = writeout-only\n"
_CONFIG_SHA256 = _CONFIG.replace("= 0", "= 1") + "[extensions]\n\tobjectformat = sha256\n"
_PERSON = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "farm try"), ("EMAIL", "farm@localhost"))
}


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """`url` is a repository of this machine that only `owner` has to be able to read. `below` is the folder within the
    tree that was named, and `changed` is true if the commit is not the HEAD of the work tree."""

    url: str
    commit: str
    owner: User
    below: str
    is_changed: bool


@dataclass(frozen=True, kw_only=True)
class _Place:
    """`git` is the person's own folder of git for this work tree; None if the folder is in no repository."""

    top: Path
    below: str
    git: Path | None = None
    common: Path | None = None
    head: str = ""
    is_sha256: bool = False


@contextmanager
def snapshot(folder: Path, *, without: Path, stop: threading.Event) -> Iterator[Snapshot]:
    """The commit of the work tree that `folder` is in. Files below the folder `without` are left out unless they are
    tracked. Raises BadSource for a folder that cannot be read, LeaseLost when `stop` is set."""
    try:
        found = folder.stat()
        folder = folder.resolve(strict=True)
    except OSError as error:
        raise BadSource(f"{str(folder)!r} cannot be built: {error.strerror}; give the folder of a package") from error
    if not folder.is_dir():
        raise BadSource(f"{str(folder)!r} is not a folder; give the folder of a package")
    git = _Git(owner=user(found.st_uid, found.st_gid), stop=stop)
    with ExitStack() as stack:
        try:
            place = _place(folder, git)
            bare = _own_repository(place, git, stack)
            commit = _commit(place, bare, without, git)
        except OSError as error:
            words = f"{error.strerror}; make it accessible to the owner of the folder, or remove it"
            raise BadSource(f"{error.filename!r} of the work tree cannot be used: {words}") from error
        below = place.below.rstrip("/")
        is_changed = commit != place.head
        yield Snapshot(url=bare.as_uri(), commit=commit, owner=git.owner, below=below, is_changed=is_changed)


@dataclass(frozen=True, kw_only=True)
class _Git:
    owner: User
    stop: threading.Event

    def __call__(
        self, *words: str | Path, cwd: Path, ok_codes: Sequence[int] = (0,), own: bool = False, **env: str
    ) -> str:
        """The output of git, without the last line end. `own`: about the farm's repository, without configuration of
        the person. Raises BadSource with git's words."""
        config = UNCONFIGURED if own else {}
        base = {"HOME": self.owner.home, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", **config}
        try:
            said = capture(
                [*self.owner.prefix, "git", *SAFE, *words],
                cwd=cwd,
                env={**base, **_PERSON, **env},
                timeout_s=_TIMEOUT_S if own else _LOOK_TIMEOUT_S,
                limit_bytes=_LISTING_BYTES,
                ok_codes=ok_codes,
                stop=self.stop,
                shown=["git", *(str(word) for word in words)],
            )
        except CommandFailed as error:
            why = printable(str(error))
            if error.completed.ending is Ending.TIMED_OUT:
                why += "; its configuration may include a named pipe"
            raise BadSource(f"the work tree {str(cwd)!r} cannot be read: {why}") from error
        return said.decode("utf-8", "surrogateescape").removesuffix("\n")


def _place(folder: Path, git: _Git) -> _Place:
    asked = ("--show-toplevel", "--absolute-git-dir", "--git-common-dir", "--show-object-format", "--show-prefix")
    tops = [above for above in (folder, *folder.parents) if os.path.lexists(above / ".git")]
    with acting_as(git.owner):
        for top in tops or [folder]:
            check_work_tree(top)
    if not tops:
        return _Place(top=folder, below="")
    top_, own, common, kind, below = [*git("rev-parse", *asked, cwd=folder).split("\n"), ""][:5]
    if Path(top_) not in tops:
        raise BadSource(f"the configuration of {own!r} names another work tree, {top_!r}; remove core.worktree there")
    head = git("rev-parse", "--quiet", "--verify", "HEAD", cwd=folder, ok_codes=(0, 1, 128))
    return _Place(
        top=Path(top_),
        below=below,
        git=Path(own),
        common=(folder / common).resolve(),
        head=head,
        is_sha256=kind == "sha256",
    )


def _own_repository(place: _Place, git: _Git, stack: ExitStack) -> Path:
    """The farm's bare repository for the work tree. Its name is the work tree's, which names the package until the
    recipe does."""
    if place.git is None:
        above = Path(tempfile.mkdtemp(prefix="farm-try-"))
        stack.callback(shutil.rmtree, above, ignore_errors=True)
        os.chown(above, git.owner.uid, git.owner.gid)
    else:
        above = place.git / "farm-try"
    bare = above / f"{place.top.name or 'package'}.git"
    with acting_as(git.owner):
        if not (above.is_symlink() or bare.is_symlink()):
            _drop_links(bare)  # of a process that was killed
        check_own(above)
        is_new = not (bare / "objects").is_dir()
        if is_new:
            bare.mkdir(parents=True, exist_ok=True)
    if is_new:
        form = "sha256" if place.is_sha256 else "sha1"
        git(*init_bare(form), "--initial-branch=main", bare, cwd=above, own=True)
    with acting_as(git.owner):
        # The folder came with the work tree: its configuration may name programs too.
        _write(bare / "config", _CONFIG_SHA256 if place.is_sha256 else _CONFIG)
        _write(bare / "info/attributes", ATTRIBUTES)
        if place.common is not None:
            _write(bare / "objects/info/alternates", f"{place.common / 'objects'}\n")
            shallow = place.common / "shallow"
            if shallow.is_file():
                _write(bare / "shallow", shallow.read_text())
            else:
                (bare / "shallow").unlink(missing_ok=True)
    return bare


def _commit(place: _Place, bare: Path, without: Path, git: _Git) -> str:
    """The commit of the work tree's files: HEAD itself if nothing differs."""
    lock = bare / "index.lock"
    with acting_as(git.owner):
        _write(bare / "info/exclude", _excluded(place, without))
        lock.unlink(missing_ok=True)  # of a process that was killed; git's objects need no lock

    def own(*words: str | Path, **env: str) -> str:
        paths = {"GIT_DIR": str(bare), "GIT_WORK_TREE": str(place.top), "GIT_INDEX_FILE": str(bare / "index")}
        return git(*words, cwd=place.top, own=True, GIT_LITERAL_PATHSPECS="1", **{**paths, **env})  # type: ignore[arg-type]

    rules = ("-c", f"core.excludesFile={_global_rules(place, git)}", "-c", "advice.addEmbeddedRepo=false")
    _forget_submodules(own)
    own(*rules, "-c", "core.bare=false", "add", "--all", "--", ".")
    _forced(place, bare, git, own, rules)
    tree = own("write-tree")
    # Asked here: git in the person's repository starts programs for signatures, and for objects that are not there.
    said = own("log", "-1", "--format=%T %ct", place.head).split() if place.head else []
    head_tree, head_at = said if len(said) == 2 else ("", "0")
    if tree == head_tree:
        commit = place.head
    else:
        at = f"@{head_at} +0000"
        parent = ("-p", place.head) if place.head else ()
        dates = {"GIT_AUTHOR_DATE": at, "GIT_COMMITTER_DATE": at}
        commit = own("commit-tree", *parent, "-m", "The work tree as it is", tree, **dates)
    own("update-ref", "refs/heads/main", commit)
    return commit


def _forget_submodules(own: Callable[..., str]) -> None:
    """Take submodules out of the index, so that git adds each one as a new entry. For a submodule that the index has,
    git asks for its state, and the submodule's own configuration names programs for that."""
    entries = own("ls-files", "--stage", "-z").split("\0")
    for path in (entry.split("\t", 1)[1] for entry in entries if entry.startswith("160000 ")):
        own("-c", "core.bare=false", "update-index", "--force-remove", "--", path)


def _forced(place: _Place, bare: Path, git: _Git, own: Callable[..., str], rules: Sequence[str]) -> None:
    """Bring in files that are tracked although a rule ignores them, and drop those that no longer are."""
    listing = ("ls-files", "-z", "--cached", "--ignored", "--exclude-standard")
    before = set(own(*rules, *listing).split("\0")) - {""}
    wanted = set()
    if place.git is not None:
        with _shared_index(place.git, bare, git.owner):
            wanted = set(own(*rules, *listing, GIT_INDEX_FILE=str(place.git / "index")).split("\0")) - {""}
    present = {path for path in wanted if os.path.lexists(place.top / path)}
    for words, paths in ((("add", "--force"), present), (("rm", "--quiet", "--cached"), before - present)):
        if not paths:
            continue
        listed = bare / f"paths-{secrets.token_hex(8)}"
        with acting_as(git.owner):
            listed.write_bytes("\0".join(sorted(paths)).encode("utf-8", "surrogateescape"))
        try:
            own("-c", "core.bare=false", *words, f"--pathspec-from-file={listed}", "--pathspec-file-nul")
        finally:
            with acting_as(git.owner):
                listed.unlink(missing_ok=True)


def _drop_links(bare: Path) -> None:
    for link in bare.glob(_SHARED_INDEX):
        if link.is_symlink():
            link.unlink()


@contextmanager
def _shared_index(person: Path, bare: Path, owner: User) -> Iterator[None]:
    """Git finds the shared part of a split index in the folder of the repository that it works on."""
    with acting_as(owner):
        for one in person.glob(_SHARED_INDEX):
            (bare / one.name).symlink_to(one)
    try:
        yield
    finally:
        with acting_as(owner):
            _drop_links(bare)


def _excluded(place: _Place, without: Path) -> str:
    """The rules of the person's `info/exclude`, and the folder of the results."""
    lines = []
    if place.common is not None:
        rules = place.common / "info/exclude"
        lines.append(rules.read_text(errors="surrogateescape") if rules.is_file() else "")
    if without.is_relative_to(place.top) and without != place.top:
        escaped = "".join(f"\\{one}" if one in r"\*?[ !#" else one for one in str(without.relative_to(place.top)))
        lines.append(f"/{escaped}/")
    return "\n".join([*lines, ""])


def _global_rules(place: _Place, git: _Git) -> str:
    """The file with the person's own rules for all repositories."""
    if place.git is None:
        return "/dev/null"
    given = git("config", "--type=path", "--get", "core.excludesFile", cwd=place.top, ok_codes=(0, 1))
    with acting_as(git.owner):
        check_file(place.top / given)
    return given or f"{git.owner.home}/.config/git/ignore"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.read_text(errors="surrogateescape") == text:
        return
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    new.write_text(text, errors="surrogateescape")
    new.replace(path)

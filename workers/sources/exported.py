"""The files of a commit in which git fills in `$Format:…$`, as `git archive` does for the attribute export-subst.

Git reads the attributes and fills in the files itself, in a repository of this step's own beside the mirror. It has the
mirror's objects, and as its only ref the branch or tag that was asked for: the same request gives the same bytes,
whatever refs the remote gets later. Every other attribute of the tree is overridden there, as in the mirror.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from workers.core.context import StepContext
from workers.sources.git import Commit, Mirror
from workers.sources.git_config import ATTRIBUTES_WITH_SUBST, PERSON, init_bare, object_format

_WORD = b"export-subst"
_FILE = ".gitattributes"


def attribute_files(paths: Iterable[str]) -> Iterator[str]:
    """The places of the files that may give these paths the attribute."""
    folders = {""}
    for path in paths:
        parts = path.split("/")[:-1]
        folders.update("/".join(parts[:count]) for count in range(1, len(parts) + 1))
    return (f"{folder}/{_FILE}" if folder else _FILE for folder in sorted(folders))


def asks(content: bytes) -> bool:
    """Whether a file of attributes names export-subst."""
    return _WORD in content


def archive(mirror: Mirror, commit: Commit, paths: Sequence[str], *, into: Path, context: StepContext) -> None:
    """Write a tar of the paths, or of the whole tree without paths. Raises CommandFailed, and as `Mirror.output`."""
    repository = context.workdir / f"export-{mirror.url.key[:8]}-{commit.id[:12]}"
    if not repository.exists():
        _make(mirror, commit, repository)
    mirror.run("archive", "--format=tar", f"--output={into}", commit.id, "--", *paths, repository=repository)


def _make(mirror: Mirror, commit: Commit, repository: Path) -> None:
    mirror.output(*init_bare(object_format(commit.id)), "--", repository, remote=True)
    (repository / "info").mkdir(exist_ok=True)
    (repository / "info/attributes").write_text(ATTRIBUTES_WITH_SUBST)
    (repository / "objects/info/alternates").write_text(f"{mirror.path / 'objects'}\n")
    here = f"--git-dir={repository}"
    if commit.ref and commit.ref.startswith("refs/heads/"):
        mirror.output(here, "update-ref", commit.ref, commit.id, remote=True)
        mirror.output(here, "symbolic-ref", "HEAD", commit.ref, remote=True)
    elif commit.ref and commit.ref.startswith("refs/tags/") and commit.is_annotated_tag:
        name = commit.ref.removeprefix("refs/tags/")
        words = ("tag", "--annotate", "--no-sign", "--message=tag", "--", name, commit.id)
        mirror.output(here, *PERSON, *words, remote=True)
    elif commit.ref and commit.ref.startswith("refs/tags/"):
        mirror.output(here, "update-ref", commit.ref, commit.id, remote=True)

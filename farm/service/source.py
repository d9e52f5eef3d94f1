"""Turns a person's words into a `Source`, and finds every mistake that shows without a network.

It reads the first bytes of a source package and checks that a folder is a git repository; the `fetch` step does the
rest. Files and recipes are judged by the package format.
"""

import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from farm.artifacts.base import ArtifactStore
from farm.artifacts.names import check_name
from farm.errors import BadSource
from farm.formats.base import Format
from farm.git_folder import check_repository
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.source import Source, SourceKind, has_mask, without_credentials

SRPM_MAX_BYTES = 4 * 2**30
_GIT_SCHEMES = ("https", "http", "ssh", "git", "file")
_SRPM_SCHEMES = ("https", "http")
_REMOTE_SCHEMES = ("https", "http", "ssh", "git")
_TEXT_MAX = 2048
_SHA256 = re.compile("[0-9a-f]{64}")
# The names that git-check-ref-format(1) refuses, and a leading dash, which a command takes for an option.
_BAD_REF = re.compile(r"^[-/.]|\.\.|//|@\{|[\s~^:?*\[\\\x00-\x20\x7f]|[/.]$|\.lock$")
_SCP_LIKE = re.compile(r"(?:[^@/:\s]+@)?[^@/:\s\-][^@/:\s]*:[^\s].*")


def git_source(
    git: str | Path, form: Format, *, ref: str | None = None, subdir: str | None = None, spec: str | None = None
) -> Source:
    """Raises BadSource for anything that cannot be a git URL, a ref, or a path inside of a tree."""
    if ref is not None and (len(ref) > _TEXT_MAX or _BAD_REF.search(ref) or ref == "@" or not ref.isprintable()):
        raise BadSource(f"--ref {ref[:80]!r} is not a name that git allows; use a branch, a tag or a commit")
    if spec is not None and (problem := form.recipe_problem(spec)):
        raise BadSource(f"--spec {spec[:80]!r} {problem}")
    url = _git_url(str(git))
    return Source(
        kind=SourceKind.GIT,
        url=url,
        ref=ref,
        subdir=_inside("--subdir", subdir),
        spec=_inside("--spec", spec),
        # A worker reads a local repository with the rights of the user who sent the request, not with its own.
        reader_uid=os.geteuid() if url.startswith(("/", "file://")) else None,
    )


def check_srpm(srpm: str | Path, form: Format) -> str | Path:
    """The URL, or the existing local src.rpm. Raises BadSource, naming the path and the remedy."""
    text = str(srpm)
    if "://" not in text:
        return _checked_file(Path(text).expanduser(), form)
    _check_text(text, "--srpm")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise BadSource(f"--srpm {without_credentials(text)!r} is not a URL: {error}; correct it") from error
    if parts.scheme == "file":
        return _checked_file(Path(unquote(parts.path)), form)
    if parts.scheme not in _SRPM_SCHEMES or not parts.hostname:
        raise BadSource(f"--srpm {without_credentials(text)!r} cannot be downloaded; give a path or a http(s) URL")
    return text


def store_srpm(checked: str | Path, store: ArtifactStore) -> Source:
    """The source of what `check_srpm` gave; a local file goes into the artifact store."""
    if isinstance(checked, str):
        return Source(kind=SourceKind.SRPM, url=checked)
    try:
        artifact = store.put(checked.resolve(), name=checked.name, kind=ArtifactKind.SRPM)
    except ValueError as error:
        raise BadSource(f"{str(checked)!r}: {error}; rename the file") from error
    return Source(kind=SourceKind.SRPM, sha256=artifact.sha256, filename=artifact.name)


def keep_package(path: Path, name: str, store: ArtifactStore) -> Artifact:
    """Move an uploaded source package into the artifact store. Raises StoreTrouble."""
    return store.put(path, name=name, kind=ArtifactKind.SRPM, move=True)


def stored_source(sha256: str, filename: str) -> Source:
    """The source of a source package that the artifact store has."""
    return Source(kind=SourceKind.SRPM, sha256=sha256, filename=filename)


def check_local(given: str | Path, kind: SourceKind, uid: int | None) -> None:
    """Raises BadSource for a path of this machine, if the actor has no user here (`uid` is None). It looks at the words
    alone: the answer must not say which paths exist.
    """
    if uid is None and is_local(str(given), kind):
        raise BadSource("a path of the farm's machine is for its users alone; give a URL that the farm can reach")


def is_local(text: str, kind: SourceKind) -> bool:
    """Whether the text names a path of a machine, and no URL."""
    if "://" in text:
        # A scheme has no case, and urlsplit passes over characters before it.
        return text.partition("://")[0].lower() not in _REMOTE_SCHEMES
    return kind is SourceKind.SRPM or "::" in text or not _SCP_LIKE.fullmatch(text)


def check_source(source: Source, form: Format, uid: int | None) -> None:
    """The same for a `Source` that a caller made, for an actor with this user of the machine. Raises BadSource."""
    if source.url is not None:
        check_local(source.url, source.kind, uid)
    match source.kind:
        case SourceKind.GIT:
            made = source.url and git_source(source.url, form, ref=source.ref, subdir=source.subdir, spec=source.spec)
            if not made or replace(source, reader_uid=made.reader_uid) != made:
                raise BadSource(f"{source.shown!r} is not a git source; make it with Farm.request(git=…)")
            if source.reader_uid not in (None, uid) and uid != 0:
                raise BadSource(
                    f"{source.shown!r} asks for the rights of user {source.reader_uid}; "
                    "only root may ask for another user"
                )
        case SourceKind.SRPM:
            stored = source.url is None and _is_stored(source)
            if not stored and (source.url is None or check_srpm(source.url, form) != source.url):
                raise BadSource(f"{source.shown!r} is not a src.rpm source; make it with Farm.request(srpm=…)")


def _is_stored(source: Source) -> bool:
    """Whether it names a file of the artifact store, under a name that a file can have."""
    try:
        return bool(_SHA256.fullmatch(source.sha256 or "")) and check_name(source.filename or "") == source.filename
    except ValueError:
        return False


def _git_url(text: str) -> str:
    _check_text(text, "--git")
    if "://" in text:
        scheme, _, rest = text.partition("://")
        if scheme not in _GIT_SCHEMES or not rest.strip("/") or rest.startswith("-"):
            raise BadSource(
                f"--git {without_credentials(text)!r} is no URL of {', '.join(_GIT_SCHEMES)}; use one of them"
            )
        _check_query(text)
        return text
    path = _expanded(text)
    if not path.exists() and _SCP_LIKE.fullmatch(text) and "::" not in text:
        return text  # git's own short form: user@host:path
    return _local_git(path)


def _check_query(url: str) -> None:
    """Git has its URL on its command line and in its messages, with the query."""
    shown = without_credentials(url)
    if has_mask(shown.partition("?")[2]):
        raise BadSource(
            f"--git {shown!r} has credentials in its query; give https://USER:TOKEN@host/…, which is never shown"
        )


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # `~name:path`, which names no user of this machine: git takes ~name for a host
        return Path(text)


def _local_git(path: Path) -> str:
    if not path.exists():
        raise BadSource(f"--git {str(path)!r} does not exist; give a URL, or the path of a git repository")
    if not (path / ".git").exists() and not ((path / "HEAD").exists() and (path / "objects").exists()):
        raise BadSource(
            f"--git {str(path)!r} is not a git repository; run `git init` and commit there, or give its top"
        )
    whole = path.resolve()
    if not str(whole).isprintable():
        raise BadSource(f"--git: the path {str(whole)!a} is not UTF-8, or has unprintable characters; rename it")
    check_repository(whole)
    return whole.as_uri()


def _inside(option: str, text: str | None) -> str | None:
    """A relative path that stays inside the tree."""
    if text is None:
        return None
    _check_text(text, option)
    parts = text.rstrip("/").split("/")
    if ".." in parts or "" in parts or text.startswith(("/", "-")):
        raise BadSource(f"{option} {text[:80]!r} is not a path inside of the tree; give one relative to its top")
    return text.rstrip("/")


def _check_text(text: str, option: str) -> None:
    if not text or len(text) > _TEXT_MAX or not text.isprintable() or text.startswith("-"):
        shown = without_credentials(text[:80])
        raise BadSource(f"{option} {shown!r} is empty, too long, starts with a dash or has unprintable characters")


def _checked_file(path: Path, form: Format) -> Path:
    shown = repr(str(path))
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise BadSource(f"--srpm {shown} is not a regular file; give the path or URL of a src.rpm")
        if found.st_size > SRPM_MAX_BYTES:
            raise BadSource(f"--srpm {shown} has {found.st_size} bytes; at most {SRPM_MAX_BYTES} are taken")
        with path.open("rb") as file:
            head = file.read(form.head_bytes)
    except FileNotFoundError as error:
        raise BadSource(f"--srpm {shown} does not exist; give the path or URL of a src.rpm") from error
    except OSError as error:
        raise BadSource(f"--srpm {shown} cannot be read: {error.strerror}; make it readable for you") from error
    if problem := form.source_problem(head, found.st_size):
        raise BadSource(f"--srpm {shown} {problem}")
    return path

"""The place of a package's source, as the request names it."""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

_MASK = "***"
_NAMES = r"token|secret|passw|pwd|credential|signature|(?<![a-z])(?:sig|auth|api_?key|key|jwt)(?![a-z])"
_SECRET = re.compile(rf"((?:^|(?<=[&;]))[^=&;]*?(?:{_NAMES})[^=&;]*=)[^&;]+", re.IGNORECASE)


class SourceKind(StrEnum):
    GIT = "git"
    SRPM = "srpm"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A git ref, or a src.rpm by URL or already in the artifact store.

    For `git`: `url`, `ref` (branch, tag or commit; None is the remote's HEAD), `subdir` and `spec` (both
    relative to the tree). For `srpm`: `url`, or `sha256` and `filename` of an artifact that the client stored.
    `reader_uid` is the user with whose rights a git repository on this machine is read; None means the user `nobody`.
    """

    kind: SourceKind
    url: str | None = None
    ref: str | None = None
    subdir: str | None = None
    spec: str | None = None
    sha256: str | None = None
    filename: str | None = None
    reader_uid: int | None = None

    @property
    def shown(self) -> str:
        """The source for people, logs and records, without credentials."""
        where = without_credentials(self.url) if self.url else (self.filename or "")
        return f"{where}#{self.ref}" if self.ref else where

    @property
    def guessed_name(self) -> str:
        """A package name to show until the srpm step knows the real one."""
        last = (self.url or self.filename or "package").rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
        return last.removesuffix(".git").removesuffix(".src.rpm") or "package"


def work_tree(url: str, commit: str, *, subdir: str | None, recipe: str | None, reader_uid: int) -> Source:
    """The source of a work tree whose files are this commit of a repository of this machine."""
    return Source(kind=SourceKind.GIT, url=url, ref=commit, subdir=subdir, spec=recipe, reader_uid=reader_uid)


def without_credentials(url: str) -> str:
    """The URL with user and password replaced, and with those values of its query that are credentials by their names,
    such as `access_token` or `X-Amz-Signature`.

    Works on what git accepts too: `user@host:path` keeps its user, which is not a secret there.
    """
    try:
        parts = urlsplit(url)
        if not parts.scheme:
            return url
        netloc = f"{_MASK}@{parts.netloc.rpartition('@')[2]}" if "@" in parts.netloc else parts.netloc
        query = _SECRET.sub(rf"\1{_MASK}", parts.query)
        if (netloc, query) == (parts.netloc, parts.query):
            return url
        return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))
    except ValueError:
        return "(a URL that does not parse)"


def has_mask(url: str) -> bool:
    """Whether `without_credentials` may have replaced something in the URL that it returned."""
    return f"://{_MASK}@" in url or f"={_MASK}" in url

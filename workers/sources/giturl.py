"""Checks git URLs, and gives git their credentials without showing them. Pure: starts nothing."""

import base64
import hashlib
import os
import posixpath
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from farm.model.outcome import Outcome
from farm.model.source import without_credentials
from farm.model.text import clip, printable
from workers.core.context import Ended

#: The transports that git may use; all others, above all `ext::`, are refused here and by git's own setting.
SCHEMES = ("https", "http", "ssh", "git", "file")

_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_SCP_LIKE = re.compile(rf"(?:[A-Za-z0-9_][A-Za-z0-9_.+-]*@)?(?:{_HOST}|\[[0-9A-Fa-f:.]+\]):(?![:/]{{0,1}}-)(?!:).+")
_SAFE_HOST = re.compile(rf"{_HOST}|[0-9A-Fa-f:.]+")
_SAFE_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, kw_only=True)
class GitUrl:
    """A checked URL. `plain` is the URL for git, without secrets; `shown` is for logs and messages. `key` names its
    mirror: made of the URL without credentials, which may be new for each build, and of a local repository's reader.
    `reader_uid` is the user with whose rights a local repository is read; None is the user `nobody`. `may_use_key` if
    ssh gets the farm's key.
    """

    full: str
    plain: str
    shown: str
    key: str
    is_local: bool
    authorization: str | None = None
    reader_uid: int | None = None
    may_use_key: bool = True

    @property
    def access(self) -> str:
        """A name for the access to this URL: without credentials or key, a reader must not read files that others
        fetched."""
        return hashlib.sha256(f"{self.may_use_key}\0{self.full}".encode()).hexdigest()

    @property
    def host(self) -> str | None:
        """The remote host; None for a local repository."""
        if self.is_local:
            return None
        if "://" in self.plain:
            return urlsplit(self.plain).hostname
        return self.plain.partition("@")[2].partition(":")[0] or self.plain.partition(":")[0]

    @property
    def asked(self) -> str:
        """The URL for git's command line. A path becomes a URL: from a plain path git itself would read a bundle, with
        the farm's rights instead of the reader's."""
        return f"file://{quote(self.plain)}" if self.plain.startswith("/") else self.plain

    @property
    def is_ssh(self) -> bool:
        return not self.is_local and ("://" not in self.plain or self.plain.startswith("ssh://"))

    @property
    def reads_as_farm(self) -> bool:
        """Whether git runs with the farm's own rights: for servers, and if the farm has only its asker's rights."""
        return not self.is_local or self.reader_uid == os.geteuid() or os.geteuid() != 0

    @property
    def lfs(self) -> str | None:
        """The address of its LFS server, as git-lfs derives it; None for a local repository."""
        if self.is_local:
            return None
        if self.is_ssh:
            return self.plain
        parts = urlsplit(self.plain)
        path = parts.path.rstrip("/")
        ending = "/info/lfs" if path.endswith(".git") else ".git/info/lfs"
        return urlunsplit(("https" if parts.scheme == "git" else parts.scheme, parts.netloc, path + ending, "", ""))

    def read_by(self, uid: int | None) -> "GitUrl":
        """The same URL, with this reader if it is local."""
        if not self.is_local:
            return self
        return replace(self, reader_uid=uid, key=hashlib.sha256(f"{uid}\0{self.full}".encode()).hexdigest())

    @property
    def config(self) -> dict[str, str]:
        """Git settings with the credentials, for its environment: neither argv nor the disk has them.

        The header is bound to scheme and host, so that no redirect and no other remote gets it.
        """
        if self.authorization is None:
            return {}
        parts = urlsplit(self.plain)
        return {f"http.{parts.scheme}://{parts.netloc}/.extraHeader": f"Authorization: {self.authorization}"}


def parse(url: str) -> GitUrl:
    """Check a URL in any of git's spellings: with a scheme, `user@host:path`, or an absolute path.

    Raises Ended for anything else; the message has the fault and no credentials.
    """
    if not url or url.startswith("-") or not url.isprintable():
        raise _refused(url, "it is empty, starts with '-' or has control characters")
    if url.startswith("/"):
        return _made(url, url, is_local=True)
    if "://" in url:
        return _parse_with_scheme(url)
    if _SCP_LIKE.fullmatch(url):
        return _made(url, url, is_local=False)
    raise _refused(url, f"give a URL ({', '.join(SCHEMES)}), user@host:path or an absolute path")


def _parse_with_scheme(url: str) -> GitUrl:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise _refused(url, "it does not parse") from error
    if parts.scheme not in SCHEMES or not url.lower().startswith(f"{parts.scheme}://"):
        raise _refused(url, f"only {', '.join(SCHEMES)} are fetched")
    if parts.scheme == "file":
        if host not in ("", "localhost") or not parts.path.startswith("/"):
            raise _refused(url, "a file URL has an absolute path and no host: file:///srv/git/hello.git")
        return _made(url, url, is_local=True)
    if not host or host.startswith("-") or parts.path.startswith("/-"):
        raise _refused(url, "it has no host, or one that starts with '-'")
    if parts.scheme in ("ssh", "git") and not _SAFE_HOST.fullmatch(host):
        # Before 9.6, ssh passes the host in its ProxyCommand to a shell.
        raise _refused(url, "its host is not a plain name")
    netloc = parts.netloc.rpartition("@")[2]
    authorization = None
    if parts.scheme == "ssh" and parts.username is not None:
        # ssh uses keys and ignores a password in its URL; the user is not a secret there.
        if not _SAFE_USER.fullmatch(parts.username):
            raise _refused(url, "its user is not a plain name")
        netloc = f"{parts.username}@{netloc}"
    elif parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    plain = urlunsplit((parts.scheme, netloc, parts.path, parts.query, parts.fragment))
    return _made(url, plain, is_local=False, authorization=authorization)


def of_submodule(parent: GitUrl, url: str) -> GitUrl:
    """The URL of a submodule from `.gitmodules`: a relative URL is resolved against the parent's, with its credentials.

    A local submodule is read with the rights of its parent's reader. The farm's ssh key is for the parent's host alone:
    the parent's author must not use it for other repositories that the key opens.
    Raises Ended as `parse` does, and for a local path in a repository that is not local itself.
    """
    found = _resolved(parent, url)
    if found.is_local and not parent.is_local:
        raise _refused(url, f"a submodule of {parent.shown} may not be a path on this machine")
    may_use_key = parent.may_use_key and parent.is_ssh and parent.host == found.host
    return replace(found.read_by(parent.reader_uid), may_use_key=may_use_key)


def _resolved(parent: GitUrl, url: str) -> GitUrl:
    if not url.startswith(("./", "../")):
        return parse(url)
    if "://" in parent.full:
        parts = urlsplit(parent.full)
        path = posixpath.normpath(posixpath.join(parts.path, url))
        return parse(urlunsplit((parts.scheme, parts.netloc, path, "", "")))
    head, colon, path = ("", "", parent.full) if parent.is_local else parent.full.rpartition(":")
    return parse(f"{head}{colon}{posixpath.normpath(posixpath.join(path, url))}")


def _made(full: str, plain: str, *, is_local: bool, authorization: str | None = None) -> GitUrl:
    return GitUrl(
        full=full,
        plain=plain,
        shown=without_credentials(full),
        key=hashlib.sha256(plain.encode()).hexdigest(),
        is_local=is_local,
        authorization=authorization,
    )


def _refused(url: str, why: str) -> Ended:
    shown = clip(printable(without_credentials(url)), 200)
    return Ended(Outcome.FAILED, f"{shown!r} is not a git URL that the farm fetches: {why}")

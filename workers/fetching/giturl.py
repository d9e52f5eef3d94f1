"""What counts as a git URL here, and how its credentials reach git without being seen. Pure: starts nothing."""

import base64
import hashlib
import posixpath
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

from farm.model.outcome import Outcome
from farm.model.source import without_credentials
from workers.steps.context import Ended

#: The transports that git may use; everything else, `ext::` above all, is refused here and by git's own setting.
SCHEMES = ("https", "http", "ssh", "git", "file")

_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_SCP_LIKE = re.compile(rf"(?:[A-Za-z0-9_][A-Za-z0-9_.+-]*@)?(?:{_HOST}|\[[0-9A-Fa-f:.]+\]):(?![:/]{{0,1}}-)(?!:).+")
_SAFE_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, kw_only=True)
class GitUrl:
    """A checked URL. `plain` is what git is told, without secrets; `shown` is for logs and messages. `key` names
    its mirror: made of the whole URL, so that who has no credentials does not get at what others fetched.
    """

    full: str
    plain: str
    shown: str
    key: str
    is_local: bool
    authorization: str | None = None

    @property
    def settings(self) -> dict[str, str]:
        """Environment variables that give git the credentials: neither argv nor the disk has them.

        The header is bound to scheme and host, so that no redirect and no other remote gets it.
        """
        if self.authorization is None:
            return {}
        parts = urlsplit(self.plain)
        return {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{parts.scheme}://{parts.netloc}/.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: {self.authorization}",
        }


def parse(url: str) -> GitUrl:
    """Check a URL in any of git's spellings: with a scheme, `user@host:path`, or an absolute path.

    Raises Ended for anything else, naming what is wrong with it and no credentials.
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
    netloc = parts.netloc.rpartition("@")[2]
    authorization = None
    if parts.scheme == "ssh" and parts.username is not None:
        # A password in an ssh URL is of no use to ssh, which takes keys; the user is no secret there.
        if not _SAFE_USER.fullmatch(parts.username):
            raise _refused(url, "its user is not a plain name")
        netloc = f"{parts.username}@{netloc}"
    elif parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    plain = urlunsplit((parts.scheme, netloc, parts.path, parts.query, parts.fragment))
    return _made(url, plain, is_local=False, authorization=authorization)


def of_submodule(parent: GitUrl, url: str) -> GitUrl:
    """The URL of a submodule as `.gitmodules` gives it: relative ones against the parent's, with its credentials.

    Raises Ended for what `parse` refuses, and for a local path in a repository that is not local itself.
    """
    if not url.startswith(("./", "../")):
        found = parse(url)
        if found.is_local and not parent.is_local:
            raise _refused(url, f"a submodule of {parent.shown} may not be a path on this machine")
        return found
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
        key=hashlib.sha256(full.encode()).hexdigest(),
        is_local=is_local,
        authorization=authorization,
    )


def _refused(url: str, why: str) -> Ended:
    shown = without_credentials(url).encode("unicode_escape").decode()[:200]
    return Ended(Outcome.FAILED, f"{shown!r} is not a git URL that the farm fetches: {why}")

"""A bare mirror per git URL: resolve a ref to a commit, and have that commit here.

Only the wanted commit is fetched, without its history: a build needs one tree. Later fetches into the same mirror
send only what changed, because git offers the commits it has. A partial clone (`--filter`) would need the network
again when files are read, and a server that speaks the filter; a shallow fetch needs neither. Servers that give no
single commits are fetched whole.

Nothing is ever checked out: files are read with `git archive` (see tree.py), so no hook, filter or symlink of the
repository acts here. Does not own what files mean, nor whose fault a failure is (blame.py).
"""

import fcntl
import hashlib
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import getproxies_environment

from farm.errors import HostUnfit, LeaseLost, Trouble
from farm.model.outcome import Outcome
from workers.fetching import blame
from workers.fetching.giturl import GitUrl
from workers.run import CommandFailed, Ending, capture, run
from workers.steps.context import Ended, StepContext

#: Read in place of the host's and the user's git configuration.
_CONFIG = """\
[safe]
	directory = *
[protocol]
	allow = never
[protocol "https"]
	allow = always
[protocol "http"]
	allow = always
[protocol "ssh"]
	allow = always
[protocol "git"]
	allow = always
[protocol "file"]
	allow = always
[core]
	hooksPath = /dev/null
	attributesFile = /dev/null
	fsmonitor = false
	askPass = /bin/false
[credential]
	helper =
[http]
	lowSpeedLimit = 500
	lowSpeedTime = 60
[fetch]
	recurseSubmodules = false
[gc]
	autoDetach = false
[submodule]
	recurse = false
[init]
	defaultBranch = main
"""

#: Files come out as they are stored: no line ends, keywords or filters, nothing left out by the tree's attributes.
_ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding -export-subst -export-ignore\n"

_CONFIG_VERSION = hashlib.sha256(_CONFIG.encode()).hexdigest()[:8]

# What lives no longer than the thread that started it. The kernel's signal goes to the one process alone, and git's
# helpers may wait for a server for ever: timeout, whose time has no end here, passes it on to the whole group.
_TIED = ("setpriv", "--pdeathsig", "TERM", "--", "timeout", "--kill-after=1", "0")
_SSH = "ssh -oBatchMode=yes -oConnectTimeout=20 -oServerAliveInterval=15 -oServerAliveCountMax=4"
_LOOK_TIMEOUT_S = 120
_SILENCE_S = 300
_LISTING_MAX_BYTES = 256 * 2**20
_LOCK_POLL_S = 0.05
_LEFT_OVER = ("*.lock", "refs/**/*.lock", "objects/pack/tmp_*", "objects/??/tmp_obj_*")

_COMMIT_ID = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_ABBREVIATED = re.compile(r"[0-9a-fA-F]{7,63}")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[-/.]|[/.]$|^@$")
_SHA1_DIGITS = 40
_SHOWN_BRANCHES = 10


@dataclass(frozen=True, kw_only=True)
class Commit:
    """`at` is its committer's time, in seconds since 1970."""

    id: str
    at: int


class Mirror:
    """The mirror of one URL, for one attempt. Safe with any number of processes on the same cache."""

    def __init__(self, url: GitUrl, context: StepContext) -> None:
        self.url = url
        self._context = context
        self._root = context.settings.cache / "git"
        self.path = self._root / url.key

    def commit(self, ref: str | None) -> Commit:
        """Resolve a branch, tag or commit, and have it in the mirror.

        A full commit id that is here needs no network; every other ref is asked for anew. Raises Ended when URL or
        ref are at fault, NetworkTrouble when the server is.
        """
        ref = ref or "HEAD"
        if _COMMIT_ID.fullmatch(ref):
            return self._ensure(ref.lower(), asked_for=ref)
        if _BAD_REF.search(ref) or not ref.isprintable():
            raise Ended(Outcome.FAILED, f"ref {ref!r:.200} is not a name that git allows")
        found = self._ask(ref)
        if found is not None:
            return self._ensure(found, asked_for=ref)
        if _ABBREVIATED.fullmatch(ref):
            return self._from_history(ref)
        raise self._unknown(ref)

    def output(self, *args: str | Path, limit_bytes: int = _LISTING_MAX_BYTES, remote: bool = False) -> bytes:
        """What a git command says about the mirror, or about the remote. Raises as `commit` does."""
        where = () if remote else (f"--git-dir={self.path}",)
        try:
            return capture(
                [*_TIED, _git(), *where, *args],
                cwd=self._root,
                env=self.environment(),
                timeout_s=min(_LOOK_TIMEOUT_S, self._left_s()),
                limit_bytes=limit_bytes,
                stop=self._context.stop,
                shown=["git", *(str(arg) for arg in args)],
            )
        except CommandFailed as error:
            done = error.completed
            if done.ending is Ending.FLOODED or (done.ending is Ending.EXITED and done.code == 0):
                what = f"git {args[0]} of {self.url.shown} says more than {limit_bytes} bytes"
                raise Ended(Outcome.FAILED, f"{what}; no package has so much to say") from error
            raise self.judged(error) from error

    def run(self, *args: str | Path) -> None:
        """A git command on the mirror whose output goes to the log. Raises CommandFailed."""
        run(
            # The limit is for each file that git writes: a pack is one file.
            [*_TIED, "prlimit", f"--fsize={self._context.limits.disk_bytes}", _git(), f"--git-dir={self.path}", *args],
            cwd=self._root,
            env=self.environment(),
            timeout_s=None,
            deadline=self._context.deadline,
            silence_s=min(_SILENCE_S, self._context.limits.silence_s),
            log=self._context.log,
            stop=self._context.stop,
            shown=["git", *(str(arg) for arg in args)],
        )

    def environment(self) -> dict[str, str]:
        proxies = {f"{name}_proxy": value for name, value in getproxies_environment().items()}
        return {
            **proxies,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self._config()),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "GIT_SSH_COMMAND": _SSH,
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_LITERAL_PATHSPECS": "1",
            "HOME": "/nonexistent",
            **self.url.settings,
        }

    def judged(self, error: CommandFailed) -> Ended | Trouble:
        """Whose fault a failed git command is."""
        if error.completed.ending is Ending.TIMED_OUT:
            self._left_s()
        return blame.judge(error, shown=self.url.shown, root=self._root, limit_bytes=self._context.limits.disk_bytes)

    # --- inside --------------------------------------------------------------------------------------------------

    def _ask(self, ref: str) -> str | None:
        """What the remote says the ref is: the commit's id (an annotated tag's commit, not the tag's own id)."""
        is_full = ref == "HEAD" or ref.startswith("refs/")
        names = [ref] if is_full else [f"refs/tags/{ref}", f"refs/heads/{ref}"]
        wanted = [name for plain in names for name in (f"{plain}^{{}}", plain)]
        listed = self._listed("ls-remote", "--", self.url.plain, *wanted)
        found = [name for name in wanted if name in listed]
        if len({name.removesuffix("^{}") for name in found}) > 1:
            self._context.log.note(f"{ref!r} is a tag and a branch of {self.url.shown}; the tag is taken")
        return listed[found[0]] if found else None

    def _listed(self, *args: str) -> dict[str, str]:
        lines = self.output(*args, remote=True).decode("utf-8", "surrogateescape").splitlines()
        return {name: commit for commit, _, name in (line.partition("\t") for line in lines) if name}

    def _unknown(self, ref: str) -> Ended:
        heads = self._listed("ls-remote", "--heads", "--", self.url.plain)
        if not heads:
            return Ended(Outcome.FAILED, f"{self.url.shown} is an empty repository: it has no branches")
        names = [name.removeprefix("refs/heads/")[:80] for name in sorted(heads)]
        known = ", ".join(ascii(name)[1:-1] for name in names[:_SHOWN_BRANCHES])
        more = f" and {len(names) - _SHOWN_BRANCHES} more" if len(names) > _SHOWN_BRANCHES else ""
        what = "there is no default branch" if ref == "HEAD" else f"ref {ref!r:.200} does not exist"
        return Ended(Outcome.FAILED, f"{what} in {self.url.shown}; known branches are {known}{more}")

    def _ensure(self, commit: str, *, asked_for: str) -> Commit:
        if found := self._here(commit):
            return found
        with self._lock():
            if found := self._here(commit):
                return found
            self._make("sha256" if len(commit) > _SHA1_DIGITS else "sha1")
            self._context.log.note(f"fetching {asked_for} of {self.url.shown}")
            try:
                self._fetch("--depth=1", f"+{commit}:refs/farm/{commit}")
            except CommandFailed as error:
                said = error.output.decode(errors="backslashreplace")
                if blame.UNKNOWN_COMMIT.search(said):
                    raise Ended(Outcome.FAILED, f"commit {commit} does not exist in {self.url.shown}") from error
                if not blame.UNSERVED_COMMIT.search(said):
                    raise self.judged(error) from error
                self._context.log.note(f"{self.url.shown} does not give single commits: fetching all of it")
                self._fetch_all()
        if found := self._here(commit):
            return found
        raise Ended(Outcome.FAILED, f"commit {commit} is in no branch or tag of {self.url.shown}, or is not a commit")

    def _from_history(self, abbreviated: str) -> Commit:
        """Only the whole history can tell what an abbreviated commit id stands for."""
        with self._lock():
            self._make("sha1")
            found = self._here(abbreviated)
            if found is None:
                self._context.log.note(f"fetching all of {self.url.shown} to find commit {abbreviated}")
                self._fetch_all()
                found = self._here(abbreviated)
        if found is None:
            raise self._unknown(abbreviated)
        return found

    def _here(self, commit: str) -> Commit | None:
        if not (self.path / "HEAD").exists():
            return None
        said = capture(
            ["git", f"--git-dir={self.path}", "show", "-s", "--format=%H %ct", f"{commit}^{{commit}}", "--"],
            cwd=self._root,
            env=self.environment(),
            timeout_s=_LOOK_TIMEOUT_S,
            limit_bytes=1000,
            ok_codes=(0, 128),
            stop=self._context.stop,
        ).split()
        return Commit(id=said[0].decode(), at=max(0, int(said[1]))) if said else None

    def _make(self, object_format: str) -> None:
        attributes = self.path / "info/attributes"
        if attributes.exists():
            self._forget_left_over()
            return
        options = ("--quiet", "--bare", "--template=", f"--object-format={object_format}")
        self.output("init", *options, "--", self.path, remote=True)
        # Last and at once, so that a mirror whose making was cut short is made anew.
        attributes.parent.mkdir(exist_ok=True)
        new = attributes.with_suffix(".new")
        new.write_text(_ATTRIBUTES)
        new.replace(attributes)

    def _forget_left_over(self) -> None:
        """Of a git that was killed: its locks would refuse every later fetch, and what it had not finished takes room.

        Nobody else writes here while the mirror is locked, and no ref is called `*.lock`.
        """
        for pattern in _LEFT_OVER:
            for left in self.path.glob(pattern):
                left.unlink(missing_ok=True)

    def _fetch_all(self) -> None:
        whole = ("--unshallow",) if (self.path / "shallow").exists() else ()
        try:
            self._fetch(*whole, "--prune", "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        except CommandFailed as error:
            raise self.judged(error) from error

    def _fetch(self, *args: str) -> None:
        options = [arg for arg in args if arg.startswith("--")]
        refspecs = [arg for arg in args if not arg.startswith("--")]
        common = ("fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        self.run(*common, *options, "--", self.url.plain, *refspecs)

    def _config(self) -> Path:
        path = self._root / f"config-{_CONFIG_VERSION}"
        if not path.exists():
            self._root.mkdir(parents=True, exist_ok=True)
            new = self._root / f"config-{self._context.attempt}.new"
            new.write_text(_CONFIG)
            new.replace(path)
        return path

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time writes to the mirror. Waiting for it can be stopped."""
        self._config()
        with (self._root / f"{self.url.key}.lock").open("wb") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self._wait()
            yield

    def _wait(self) -> None:
        if self._context.stop.wait(_LOCK_POLL_S):
            raise LeaseLost(f"stopped while another attempt fetched {self.url.shown}")
        self._left_s()

    def _left_s(self) -> float:
        left = self._context.deadline - time.monotonic()
        if left <= 0:
            raise Ended(Outcome.TIMED_OUT, f"fetching {self.url.shown} took longer than the step's time limit")
        return left


def _git() -> str:
    """Where git is. Raises HostUnfit here, where what is run first is another tool."""
    found = shutil.which("git")
    if found is None:
        raise HostUnfit("git is not installed on this host; run deploy/bootstrap, or install the tool")
    return found

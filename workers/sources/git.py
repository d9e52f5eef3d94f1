"""A bare mirror for each git URL: resolves a ref to a commit, and fetches that commit.

Only the wanted commit is fetched, without its history: a build needs one tree. Later fetches into the same mirror
transfer only changes, because git offers the commits it has. A partial clone (`--filter`) would need the network
again when files are read, and a server that supports the filter; a shallow fetch needs neither. From a server that
does not serve single commits everything is fetched.

Nothing is ever checked out: files are read with `git archive` (see tree.py), so no hook, filter or symlink of the
repository is used. Does not own the meaning of files, nor the cause of a failure (git_blame.py).
"""

import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from farm.errors import NetworkTrouble, SourceUnavailable, Trouble
from farm.model.outcome import Outcome
from farm.model.remote import RemoteKind
from workers.core import text
from workers.core.context import Ended, StepContext
from workers.core.locks import LockKind, locked, until
from workers.core.run import CommandFailed, Ending, capture, run
from workers.core.users import User, user
from workers.sources import gateway, git_blame, git_config, refs
from workers.sources.confined import confined
from workers.sources.gateway import Gateway
from workers.sources.giturl import GitUrl
from workers.sources.growth import forget_left_over, is_untidy
from workers.sources.readers import Readers

_NOBODY = 65534
_LOOK_TIMEOUT_S = 120
_SILENCE_S = 300
_LISTING_MAX_BYTES = 16 * 2**20

_COMMIT_ID = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[-/.]|[/.]$|^@$")
_DATE_DIGITS = 12  # seconds since 1970
_SHOWN_IDS = 5
_FATAL = 128  # the exit code of git
_READ = 'exec "$@" < "$0"'


@dataclass(frozen=True, kw_only=True)
class Commit:
    """`at` is its committer's time, in seconds since 1970. `ref` is the branch or tag by which it was asked for, by its
    whole name."""

    id: str
    at: int
    ref: str | None = None
    is_annotated_tag: bool = False


class Mirror:
    """The mirror of one URL, for one attempt. Safe with any number of processes on the same cache."""

    def __init__(self, url: GitUrl, context: StepContext, out: Gateway) -> None:
        self.url = url
        self.gateway = out
        self._context = context
        self._root = context.settings.cache / "git"
        self.path = self._root / url.key
        self._readers = Readers(self.path)

    def commit(self, ref: str | None) -> Commit:
        """Resolve a branch, tag or commit, and fetch it into the mirror.

        A full commit id that is here needs no network if the server has accepted this reader before; for any other ref
        the server is asked again. Raises Ended for a fault of URL or ref, NetworkTrouble for a fault of the server.
        """
        self._readers.used()
        found = self._commit(ref or "HEAD")
        self._readers.remember(self.url.access)
        return found

    def _commit(self, ref: str) -> Commit:
        if _COMMIT_ID.fullmatch(ref):
            if not self._readers.knows(self.url.access):
                self._ask("HEAD")  # another reader may have fetched the commit: raises if this one may not read it
            return self._ensure(ref.lower(), asked_for=ref)
        if _BAD_REF.search(ref) or not ref.isprintable():
            raise Ended(Outcome.FAILED, f"ref {ref!r:.200} is not a name that git allows")
        found = self._ask(ref)
        if found is not None:
            commit = self._ensure(found.commit, asked_for=ref)
            return replace(commit, ref=found.name, is_annotated_tag=found.is_annotated)
        if refs.ABBREVIATED.fullmatch(ref):
            return self._from_history(ref)
        raise self._unknown(ref)

    def output(
        self,
        *args: str | Path,
        limit_bytes: int = _LISTING_MAX_BYTES,
        remote: bool = False,
        given: Path | None = None,
    ) -> bytes:
        """The output of a git command about the mirror, or about the remote. The command reads the file `given`.

        Raises as `commit` does.
        """
        where = () if remote else (f"--git-dir={self.path}",)
        try:
            return self._captured(*where, *args, limit_bytes=limit_bytes, given=given)
        except CommandFailed as error:
            done = error.completed
            if done.ending is Ending.FLOODED or (done.ending is Ending.EXITED and done.code == 0):
                what = f"git {args[0]} of {self.url.shown} writes more than {limit_bytes} bytes"
                raise Ended(Outcome.FAILED, f"{what}; no package needs so many") from error
            raise self.judged(error) from error

    def bring(self, *args: str | Path) -> None:
        """Run a git command that writes to the mirror, with its output in the log. The caller holds the lock.

        Raises CommandFailed.
        """
        try:
            with self.gateway.growth.watched(self.path, self._context.limits, self.url.shown) as watch:
                self.run(*args, watch=watch.verdict)
        except BaseException:
            forget_left_over(self.path)  # an unfinished file may be as large as the disk limit
            raise

    def run(
        self, *args: str | Path, repository: Path | None = None, watch: Callable[[], Ending | None] | None = None
    ) -> None:
        """Run a git command on the mirror, or on a repository of the step's own, with its output in the log.

        Raises CommandFailed.
        """
        self.gateway.forget()
        # The limit applies to each file that git writes: a pack is one file.
        size = ("prlimit", f"--fsize={self._context.limits.disk_bytes}")
        with confined(self._context.limits, f"git {self._verb(args)} of {self.url.shown}") as around:
            run(
                around.argv(
                    [*self.gateway.prefix, *size, git_config.git(), f"--git-dir={repository or self.path}", *args]
                ),
                cwd=self._root,
                env=self.environment(),
                timeout_s=None,
                deadline=self._context.deadline,
                silence_s=min(_SILENCE_S, self._context.limits.silence_s),
                log=self._context.log,
                stop=self._context.stop,
                tree=around.group,
                watch=watch,
                shown=["git", *(str(arg) for arg in args)],
            )

    def environment(self) -> dict[str, str]:
        known_hosts = self._context.settings.ssh_known_hosts or "/dev/null"
        key = self._context.settings.ssh_key if self.url.may_use_key else None
        ssh = [*git_config.SSH, f"-oUserKnownHostsFile={known_hosts}", f"-oIdentityFile={key or 'none'}"]
        settings = {**self.url.config, **self.gateway.settings}
        return {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self._config()),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "GIT_SSH_COMMAND": shlex.join([*ssh, f"-oProxyCommand={gateway.proxy_command()}"]),
            "GIT_SSH_VARIANT": "ssh",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_LITERAL_PATHSPECS": "1",
            "HOME": "/nonexistent",
            "GIT_CONFIG_COUNT": str(len(settings)),
            **{f"GIT_CONFIG_KEY_{number}": name for number, name in enumerate(settings)},
            **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(settings.values())},
            **self.gateway.environment,
        }

    def judged(self, error: CommandFailed) -> Ended | Trouble:
        """The error for a failed git command, by its cause."""
        if error.completed.ending is Ending.TIMED_OUT:
            self._left_s()
        if self.gateway.refused:
            return Ended(Outcome.FAILED, f"{self.url.shown} is not fetched: {text.shown(self.gateway.refused[0])}")
        found = git_blame.judge(
            error, shown=self.url.shown, root=self._root, limit_bytes=self._context.limits.disk_bytes
        )
        failed = self.gateway.failed[-1:]
        if isinstance(found, NetworkTrouble) and failed:
            kind = SourceUnavailable if self.gateway.is_servers_fault else type(found)
            return kind(f"{found} ({text.shown(failed[0][1])})", failed[0][0])
        if found.remote is None:
            found.remote = self.url.host or "a repository on this host"
            found.remote_kind = RemoteKind.SERVER if self.url.host else RemoteKind.INPUT
        return found

    # --- inside --------------------------------------------------------------------------------------------------

    def _captured(
        self, *args: str | Path, limit_bytes: int, ok_codes: tuple[int, ...] = (0,), given: Path | None = None
    ) -> bytes:
        self.gateway.forget()
        reads = () if given is None else ("sh", "-c", _READ, given)
        with confined(self._context.limits, f"git {self._verb(args)} of {self.url.shown}") as around:
            return capture(
                around.argv([*self.gateway.prefix, *reads, git_config.git(), *args]),
                cwd=self._root,
                env=self.environment(),
                timeout_s=min(_LOOK_TIMEOUT_S, self._left_s()),
                limit_bytes=limit_bytes,
                ok_codes=ok_codes,
                stop=self._context.stop,
                tree=around.group,
                shown=["git", *(str(arg) for arg in args)],
            )

    def _verb(self, args: Sequence[str | Path]) -> str:
        return next((str(arg) for arg in args if str(arg).isalpha() or "-" in str(arg)[1:2]), "")

    @property
    def _upload_pack(self) -> tuple[str, ...]:
        """The option with which git reads a local repository in another process, with the asker's rights."""
        if self.url.reads_as_farm:
            return ()
        safe = ("GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
        clean = ("env", "-i", "--chdir=/", f"PATH={os.defpath}")
        settings = (f"{name}={value}" for name, value in git_config.UNCONFIGURED.items())
        words = (*clean, *settings, *safe, *_reader(self.url.reader_uid).prefix, git_config.git(), "upload-pack")
        return (f"--upload-pack={shlex.join(words)}",)

    def _ask(self, ref: str) -> refs.Found | None:
        """The ref at the remote."""
        wanted = [name for plain in refs.candidates(ref) for name in (f"{plain}{refs.PEELED}", plain)]
        listed = self._listed("ls-remote", *self._upload_pack, "--", self.url.asked, *wanted)
        found = refs.find(ref, listed)
        if found and found.also:
            others = ", ".join(text.shown(name) for name in found.also)
            self._context.log.note(f"{ref!r} is {found.name} of {self.url.shown}, and not {others}")
        return found

    def _listed(self, *args: str) -> dict[str, str]:
        lines = self.output(*args, remote=True).decode("utf-8", "surrogateescape").splitlines()
        return {name: commit for commit, _, name in (line.partition("\t") for line in lines) if name}

    def _unknown(self, ref: str) -> Ended:
        listed = self._listed("ls-remote", "--heads", "--tags", *self._upload_pack, "--", self.url.asked)
        if not listed:
            return Ended(Outcome.FAILED, f"{self.url.shown} is an empty repository: it has no branches")
        what = "there is no default branch" if ref == "HEAD" else f"ref {ref!r:.200} does not exist"
        return Ended(Outcome.FAILED, f"{what} in {self.url.shown}; {refs.known(ref, listed)}")

    def _ensure(self, commit: str, *, asked_for: str) -> Commit:
        if found := self._here(commit):
            return found
        with self.lock() as has_waited:
            if has_waited and (found := self._here(commit)):
                return found
            self._make(git_config.object_format(commit))
            self._context.log.note(f"fetching {asked_for} of {self.url.shown}")
            try:
                self.fetch("--depth=1", f"+{commit}:refs/farm/{commit}")
            except CommandFailed as error:
                said = error.output.decode(errors="backslashreplace")
                if git_blame.UNKNOWN_COMMIT.search(said):
                    raise Ended(Outcome.FAILED, f"commit {commit} does not exist in {self.url.shown}") from error
                if not git_blame.UNSERVED_COMMIT.search(said):
                    raise self.judged(error) from error
                self._context.log.note(f"{self.url.shown} does not serve single commits: fetching all of it")
                self.fetch_all()
        if found := self._here(commit):
            return found
        raise Ended(Outcome.FAILED, f"commit {commit} is in no branch or tag of {self.url.shown}, or is not a commit")

    def _from_history(self, abbreviated: str) -> Commit:
        """Resolve an abbreviated commit id, for which the whole history is needed."""
        with self.lock():
            self._make("sha1")
            found = self._here(abbreviated)
            if found is None:
                self._context.log.note(f"fetching all of {self.url.shown} to find commit {abbreviated}")
                self.fetch_all()
                found = self._here(abbreviated)
        if found is None:
            raise self._ambiguous(abbreviated) or self._unknown(abbreviated)
        return found

    def _ambiguous(self, abbreviated: str) -> Ended | None:
        """The error for a beginning that several objects share."""
        beginnings = self.output("rev-parse", f"--disambiguate={abbreviated}").decode().split()
        several = ", ".join(beginnings[:_SHOWN_IDS])
        words = (
            f"{abbreviated} is the beginning of {len(beginnings)} ids in {self.url.shown}: {several}; give more of it"
        )
        return Ended(Outcome.FAILED, words) if len(beginnings) > 1 else None

    def _here(self, commit: str) -> Commit | None:
        if not (self.path / "HEAD").exists():
            return None
        # Not `git show`, which compares the whole tree with nothing even if it prints none of that.
        try:
            said = self._captured(
                f"--git-dir={self.path}",
                *("log", "--max-count=1", "--format=%H %ct", f"{commit}^{{commit}}", "--"),
                limit_bytes=1000,
                ok_codes=(0, 128),
            ).split()
        except CommandFailed as error:
            if error.completed.ending is not Ending.FLOODED:
                raise self.judged(error) from error
            said = [b"", b"?"]
        if said and not (said[1].isdigit() and len(said[1]) <= _DATE_DIGITS):
            raise Ended(Outcome.FAILED, f"commit {commit} of {self.url.shown} has a bad date")
        found = Commit(id=said[0].decode(), at=int(said[1])) if said else None
        return found if found and self._is_whole(found) else None

    def _is_whole(self, commit: Commit) -> bool:
        """Whether each file of the commit is here: a fetch by dumb HTTP that fails leaves the objects that it has."""
        words = (f"--git-dir={self.path}", "rev-list", "--objects", "--no-walk", "--quiet", commit.id, "--")
        try:
            self._captured(*words, limit_bytes=1000)
        except CommandFailed as error:
            if error.completed.ending is Ending.EXITED and error.completed.code == _FATAL:
                return False
            raise self.judged(error) from error
        return True

    def _make(self, form: str) -> None:
        attributes = self.path / "info/attributes"
        if attributes.exists():
            forget_left_over(self.path)
            return
        self.output(*git_config.init_bare(form), "--", self.path, remote=True)
        # Last and atomically, so that an incomplete mirror is made again.
        attributes.parent.mkdir(exist_ok=True)
        new = attributes.with_suffix(".new")
        new.write_text(git_config.ATTRIBUTES)
        new.replace(attributes)

    def fetch_all(self) -> None:
        """Fetch all branches and tags with their history. The caller holds the lock. Raises as `commit` does."""
        whole = ("--unshallow",) if (self.path / "shallow").exists() else ()
        try:
            self.fetch(*whole, "--prune", "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        except CommandFailed as error:
            raise self.judged(error) from error

    def fetch(self, *args: str) -> None:
        """Run `git fetch` with these options and refspecs. The caller holds the lock. Raises CommandFailed."""
        options = [arg for arg in args if arg.startswith("--")]
        refspecs = [arg for arg in args if not arg.startswith("--")]
        common = ("--progress", "--no-auto-gc", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        self.bring("fetch", *common, *options, *self._upload_pack, "--", self.url.asked, *refspecs)
        # Apart, since it writes all packs of the mirror again, which are not the step's.
        if is_untidy(self.path):
            with suppress(CommandFailed, Ended):
                self.run("gc", "--auto", "--quiet")

    def _config(self) -> Path:
        path = self._root / f"config-{git_config.VERSION}"
        if not path.exists():
            self._root.mkdir(parents=True, exist_ok=True)
            new = self._root / f"config-{self._context.attempt}.new"
            new.write_text(git_config.TEXT)
            new.replace(path)
        return path

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """One process at a time writes to the mirror. The wait for the lock can be stopped. Yields whether another
        process had it."""
        self._config()
        has_waited = False
        stopped = until(self._context.stop, f"stopped while another attempt fetched {self.url.shown}")

        def pause() -> None:
            nonlocal has_waited
            has_waited = True
            stopped()
            self._left_s()

        with locked(self._root / f"{self.url.key}.lock", LockKind.EXCLUSIVE, pause):
            yield has_waited

    def _left_s(self) -> float:
        left = self._context.deadline - time.monotonic()
        if left <= 0:
            raise Ended(Outcome.TIMED_OUT, f"fetching {self.url.shown} took longer than the step's time limit")
        return left


def _reader(uid: int | None) -> User:
    """`nobody` if the user who asked is unknown."""
    if uid is None:
        return User(uid=_NOBODY, gid=_NOBODY, name=None, home="/nonexistent")
    return user(uid, _NOBODY)

"""Release and changelog of a spec from the history of its repository: `%autorelease` and `%autochangelog`.

The rules are rpmautospec's own: its library walks the history that the mirror has. The farm answers the one question
for which the library would run the specs on this host, the version that a spec had at a commit: rpm is asked in a root
(versions.py). The result reaches rpmbuild as with rpmautospec, by a header of the spec that defines the macro, and by
the changelog's text; so the source package holds it.
"""

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from farm.errors import HostUnfit
from farm.model.outcome import Outcome
from workers.core.context import Ended, StepContext
from workers.core.text import shown
from workers.formats.base import GatherRequest
from workers.formats.rpm.versions import OldSpec, SpecVersion, Versions
from workers.sources.content import Content
from workers.sources.history import History, PastCommit
from workers.sources.tree import Tree

try:
    from rpmautospec.pkg_history import PkgHistoryProcessor
    from rpmautospec.specparser import AUTORELEASE_DEFINITION
    from rpmautospec.subcommands.process_distgit import AUTORELEASE_TEMPLATE, RPMAUTOSPEC_TEMPLATE
    from rpmautospec.version import __version__ as rpmautospec_version
    from rpmautospec_core import AUTORELEASE_MACRO, check_specfile_features
except ImportError as error:  # it loads the host's librpm, though the farm asks it nothing
    raise HostUnfit(f"rpmautospec cannot be loaded ({error}); is rpm's library installed?") from error

_SPEC_MAX_BYTES = 2**20
_CHANGELOG_MAX_BYTES = 4 * 2**20
_CHANGELOGS_MAX_BYTES = 16 * 2**20
_FIRST_BATCH = 16
_BATCH_MAX = 256
_FILES_MAX_BYTES = 4 * 2**20
_FILES_MAX = 200
_NAME_MAX_BYTES = 255
_TREES_MAX = 300
_MACROS = (
    ("_invalid_encoding_terminates_build", "0"),
    (AUTORELEASE_MACRO, AUTORELEASE_DEFINITION),
    ("autochangelog", "%nil"),
)


class _HistoryLacksError(Exception):
    """The rules need commits that are not fetched yet."""


class _VersionLacksError(Exception):
    """The rules need the version at a commit, and rpm was not asked yet."""

    def __init__(self, commit: str) -> None:
        super().__init__(commit)
        self.commit = commit


def processed(
    spec_path: str, content: Content, tree: Tree, request: GatherRequest, context: StepContext
) -> Content | None:
    """The spec with its release and changelog filled in; None for a spec that takes neither from the history.

    Raises Ended for a history that the rules cannot be applied to, trouble as `Tree` and roots do.
    """
    path = context.workdir / "recipe.spec"
    path.write_bytes(content.read())
    features = check_specfile_features(path, enable_caching=False)
    context.log.note("the spec uses " + " and ".join(_used(features)))
    with Versions(request, _MACROS, context) as versions:
        past = _Past(spec_path=spec_path, tree=tree, context=context, versions=versions)
        try:
            result = _result(past, needs_changelog=_needs_changelog(features))
            made = None if result is None else _written(path, features, result)
        except (ValueError, OverflowError) as error:  # a number of thousands of digits
            raise Ended(Outcome.FAILED, f"rpmautospec's rules give no release: {shown(str(error))}") from error
    if result is None or made is None:
        return None
    context.log.note(f"release {shown(str(result['release-complete']))} at commit {tree.commit.id[:12]}")
    new = path.with_suffix(".processed")
    new.write_bytes(made)
    return Content(file=new, offset=0, size_bytes=len(made))


def _used(features: Any) -> list[str]:
    names = {"%autorelease": features.has_autorelease, "%autochangelog": features.has_autochangelog}
    return [name for name, is_used in names.items() if is_used]


def _needs_changelog(features: Any) -> bool:
    """As rpmautospec's own rule: a spec without any %changelog gets one."""
    has_none = features.changelog_lineno is None and features.autochangelog_lineno is None
    return bool(has_none or features.has_autochangelog)


def _result(past: "_Past", *, needs_changelog: bool) -> Mapping[str, Any] | None:
    """The library's result for the tip; None if rpm cannot read the tip's spec, which the srpm step then tells."""
    past.history.more()
    found: Mapping[str, Any] | None = None
    while found is None:
        rules = _Rules(past)
        visitors = [rules.release_number_visitor, *([rules.changelog_visitor] if needs_changelog else ())]
        try:
            found = rules.run(past.commit(past.tree.commit.id), visitors=_watched(visitors))
        except _HistoryLacksError:
            past.history.more()
            past.forget()
        except _VersionLacksError as lacks:
            past.ask_from(lacks.commit)
    if error := found["verflags"].get("error-detail"):
        past.context.log.note(f"rpm cannot read the spec: {shown(str(error))}")
        return None
    return found


def _watched(visitors: Sequence[Callable[..., Any]]) -> list[Callable[..., Any]]:
    """The visitors, which stop the walk at a commit whose parents they need and do not have."""

    def watch(visitor: Callable[..., Any]) -> Callable[..., Any]:
        def visit(commit: "_Commit", child: Mapping[str, Any]) -> Any:
            if commit.past.is_cut and child["child_must_continue"]:
                raise _HistoryLacksError
            return visitor(commit, child)

        return visit

    return [watch(visitor) for visitor in visitors]


def _written(path: Path, features: Any, result: Mapping[str, Any]) -> bytes:
    """The text of the spec, as rpmautospec writes it."""
    number = AUTORELEASE_TEMPLATE.format(autorelease_number=result["release-number"])
    used = ["autorelease"] if features.has_autorelease else []
    needs_changelog = _needs_changelog(features)
    head = RPMAUTOSPEC_TEMPLATE.format(
        version=rpmautospec_version,
        used_features=", ".join([*used, *(["autochangelog"] if needs_changelog else ())]),
        autorelease_blurb_if_needed=number if features.has_autorelease else "",
    )
    with path.open(encoding="utf-8", errors="surrogateescape") as spec:
        parts = [head, "\n", *_kept(spec, features)]
    if not features.has_autochangelog and features.changelog_lineno is None:
        parts.append("\n%changelog\n")
    if needs_changelog:
        entries = "\n\n".join(entry.format() for entry in result["changelog"])
        parts += ["## START: Generated by rpmautospec\n", entries, "\n## END: Generated by rpmautospec\n"]
    return "".join(parts).encode("utf-8", "surrogateescape")


def _kept(spec: Iterator[str], features: Any) -> Iterator[str]:
    """The lines of the spec up to its changelog, if that is made."""
    for number, line in enumerate(spec, start=1):
        if features.has_autochangelog and features.changelog_lineno and number > features.changelog_lineno:
            return
        if features.has_autochangelog and not features.changelog_lineno and number == features.autochangelog_lineno:
            yield "%changelog\n"
            return
        yield line


@dataclass
class _Past:
    """The history with the contents that the rules ask for."""

    spec_path: str
    tree: Tree
    context: StepContext
    versions: Versions
    answers: dict[str, SpecVersion] = field(default_factory=dict)
    by_tree: dict[str, SpecVersion] = field(default_factory=dict)
    batch: int = _FIRST_BATCH
    left_bytes: int = _CHANGELOGS_MAX_BYTES
    _made: dict[str, "_Commit"] = field(default_factory=dict)
    _blobs: dict[str, bytes] = field(default_factory=dict)

    @cached_property
    def history(self) -> History:
        return History(self.tree.mirror, self.tree.commit.id, self.context, why="%autorelease")

    @property
    def folder(self) -> str:
        return posixpath.dirname(self.spec_path)

    @property
    def changelog_path(self) -> str:
        return posixpath.join(self.folder, "changelog")

    def forget(self) -> None:
        self._made.clear()
        self.__dict__.pop("objects", None)

    @cached_property
    def objects(self) -> Mapping[str, tuple[str, int]]:
        """The spec, the changelog and the folder of each commit, by their names in git."""
        names = [name for commit in self.history.commits for name in self.names_at(commit)]
        return self.history.objects(names)

    def names_at(self, commit: str) -> tuple[str, str, str]:
        return f"{commit}:{self.spec_path}", f"{commit}:{self.changelog_path}", f"{commit}:{self.folder}"

    def commit(self, identity: str) -> "_Commit":
        if identity not in self._made:
            self._made[identity] = _Commit(self, self.history.commits[identity])
        return self._made[identity]

    def changelog(self, identity: str) -> bytes:
        """The content of a `changelog` file. Raises Ended if they are too large."""
        if identity not in self._blobs:
            found = self._blobs[identity] = self.history.blob(identity, limit_bytes=_CHANGELOG_MAX_BYTES)
            self.left_bytes -= len(found)
            if self.left_bytes < 0:
                words = f"the `changelog` files of {self.tree.mirror.url.shown} have more than {_CHANGELOGS_MAX_BYTES}"
                raise Ended(Outcome.OVER_LIMIT, f"{words} bytes; no package has so long a history")
        return self._blobs[identity]

    def answer(self, commit: str) -> SpecVersion | None:
        """None if the commit has no spec. Raises _VersionLacksError until rpm was asked."""
        spec, _, folder = self.names_at(commit)
        found = self.objects.get(spec)
        if found is None:
            return None
        answer = self.answers.get(found[0])
        if answer is not None and answer.error is not None:
            # The spec alone cannot be read: it may include files beside it, so each state of the folder counts.
            answer = self.by_tree.get(self.objects[folder][0])
        if answer is None:
            raise _VersionLacksError(commit)
        return answer

    def ask_from(self, commit: str) -> None:
        """Ask rpm about the commit, and about the next ones that the rules are likely to need."""
        spec, _, folder = self.names_at(commit)
        blob, size_bytes = self.objects[spec]
        if blob in self.answers:
            self._ask_with_files(commit, self.objects[folder][0])
            return
        order = list(self.history.commits)
        wanted: dict[str, int] = {blob: size_bytes}
        for other in order[order.index(commit) :]:
            found = self.objects.get(self.names_at(other)[0])
            if found and found[0] not in self.answers and len(wanted) < self.batch:
                wanted[found[0]] = found[1]
        self.batch = min(2 * self.batch, _BATCH_MAX)
        large = [blob for blob, size_bytes in wanted.items() if size_bytes > _SPEC_MAX_BYTES]
        self.answers.update({blob: SpecVersion(error="it is too large") for blob in large})
        asked = [blob for blob in wanted if blob not in large]
        specs = [OldSpec(content=self.history.blob(one, limit_bytes=_SPEC_MAX_BYTES), files={}) for one in asked]
        self.answers.update(zip(asked, self.versions.ask(specs), strict=True))

    def _ask_with_files(self, commit: str, tree_id: str) -> None:
        if len(self.by_tree) >= _TREES_MAX:
            words = f"rpm cannot read more than {_TREES_MAX} past states of {shown(self.spec_path)} without other files"
            raise Ended(Outcome.OVER_LIMIT, f"{words}; write the version into the spec itself")
        blob, size_bytes = self.objects[self.names_at(commit)[0]]
        answer = self.answers[blob]
        if size_bytes <= _SPEC_MAX_BYTES:
            content = self.history.blob(blob, limit_bytes=_SPEC_MAX_BYTES)
            (answer,) = self.versions.ask([OldSpec(content=content, files=self._files(commit))])
        self.by_tree[tree_id] = answer

    def _files(self, commit: str) -> dict[str, bytes]:
        """The small files beside the spec at a commit."""
        listed = self.history.mirror.output(
            "ls-tree", "-z", "-l", f"{commit}:{self.folder}", limit_bytes=_FILES_MAX_BYTES
        )
        left = _FILES_MAX_BYTES
        found: dict[str, bytes] = {}
        for line in listed.split(b"\0")[:-1]:
            head, _, raw = line.partition(b"\t")
            mode, _, identity, size = head.decode().split()
            name = raw.decode("utf-8", "surrogateescape")
            is_plain = mode.startswith("100") and name.isprintable() and "/" not in name and len(raw) <= _NAME_MAX_BYTES
            is_small = size.isdigit() and int(size) <= left and len(found) < _FILES_MAX
            if is_plain and is_small and name not in (".", ".."):
                left -= int(size)
                found[name] = self.history.blob(identity, limit_bytes=_FILES_MAX_BYTES)
        return found


class _Rules(PkgHistoryProcessor):  # type: ignore[misc] # the library ships no types
    """rpmautospec's rules on the farm's own view of the history."""

    def __init__(self, past: _Past) -> None:
        """Without the constructor of the library, which opens a repository of this host."""
        self.path = PurePosixPath(past.folder or ".")
        self.name = posixpath.basename(past.spec_path).removesuffix(".spec")
        self.specfile = PurePosixPath(past.spec_path)
        self.repo = _Repository(past)
        self._past = past

    def _get_rpmverflags_for_commit(self, commit: "_Commit") -> dict[str, Any]:
        answer = self._past.answer(commit.id)
        if answer is None:
            return {"error": "specfile-missing", "error-detail": "Spec file is missing."}
        if answer.error is not None:
            return {"error": "specfile-parse-error", "error-detail": answer.error}
        found = self.autorelease_flags_re.match(answer.release)
        flags = found.groupdict() if found else {}
        return {
            "epoch-version": answer.version,
            "extraver": flags.get("extraver") or None,
            "snapinfo": flags.get("snapinfo") or None,
            "prerelease": flags.get("prerelease") == "1" or None,
            "base": int(flags["base"] or 1) if found else None,
        }


@dataclass(frozen=True)
class _Repository:
    past: _Past

    def walk(self, _: str) -> Iterator["_Commit"]:
        return (self.past.commit(identity) for identity in self.past.history.commits)


@dataclass(frozen=True)
class _Person:
    name: str
    email: str


@dataclass(frozen=True)
class _Blob:
    past: _Past = field(compare=False)
    id: str

    @property
    def data(self) -> bytes:
        return self.past.changelog(self.id)


@dataclass(frozen=True)
class _Folder:
    """The folder of the spec at a commit, as the library's tree."""

    past: _Past = field(compare=False)
    commit: str = field(compare=False)
    id: str

    def _find(self, name: str) -> tuple[str, int] | None:
        return self.past.objects.get(f"{self.commit}:{posixpath.join(self.past.folder, name)}")

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def __getitem__(self, name: str) -> _Blob:
        found = self._find(name)
        if found is None:
            raise KeyError(name)
        return _Blob(self.past, found[0])


class _Commit:
    """A commit as the library sees it. One object for each, so that identity is equality."""

    def __init__(self, owner: _Past, past: PastCommit) -> None:
        self.past = past
        self._owner = owner
        self.id = past.id
        self.short_id = past.id[:12]
        self.message = past.message
        self.commit_time = past.at
        # rpm expands macros in the changelog; the library escapes the message alone.
        self.author = _Person(past.author.replace("%", "%%"), past.email.replace("%", "%%"))
        found = owner.objects.get(owner.names_at(past.id)[2])
        self.tree = _Folder(owner, past.id, found[0] if found else "")

    @cached_property
    def parents(self) -> list["_Commit"]:
        return [self._owner.commit(parent) for parent in self.past.parents if parent in self._owner.history.commits]

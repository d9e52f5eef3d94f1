"""Collects all files of a source package: from the tree, a lookaside, a URL, or the tree itself as a tarball.

It knows two layouts: everything in one folder (Fedora), and SPECS/ beside SOURCES/ (AlmaLinux, CentOS 8). rpm tells
the sources of a spec (asked.py), which are then brought here; rpm is asked again once all of them are there, since the
spec can read them.
"""

import hashlib
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from farm.formats.rpm.rpmfile import NOSRC
from farm.formats.rpm.settings import settings_of
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from workers.core.context import Ended, StepContext
from workers.core.text import shown
from workers.formats.base import Gathered, GatherRequest
from workers.formats.rpm import asking, autouse, lookaside
from workers.formats.rpm.asked import Asker, Missing
from workers.formats.rpm.asking import Answer, NamedSource
from workers.formats.rpm.engine import BuildEngine
from workers.formats.rpm.layout import below, joined, package_folder
from workers.formats.rpm.lookaside import Listed
from workers.sources import tarball
from workers.sources.content import Content
from workers.sources.tarball import Member
from workers.sources.tree import Entry, Tree
from workers.sources.wanted import Missing as NotDownloaded
from workers.sources.wanted import Wanted, hide, is_fetchable

_SPEC_MAX_BYTES = 8 * 2**20
_LIST_MAX_BYTES = 4 * 2**20
_METADATA = re.compile(r"\.[^/]+\.metadata")
_CHUNK_BYTES = 2**20
_SHOWN_SPECS = 10
_ROUNDS = 10
_NAME_MAX_BYTES = 255  # Linux's limit, in any file system


@dataclass
class _Gathering:
    """The state so far. `files` are those that are here, by name; `wanted` are those to be downloaded next."""

    tree: Tree
    request: GatherRequest
    context: StepContext
    spec_path: str = ""
    folders: list[str] = field(default_factory=list)
    files: dict[str, Content] = field(default_factory=dict)
    executable: set[str] = field(default_factory=set)
    listed: dict[str, Listed] = field(default_factory=dict)
    wanted: dict[str, Wanted] = field(default_factory=dict)
    judged: set[str] = field(default_factory=set)

    @property
    def spec_name(self) -> str:
        return posixpath.basename(self.spec_path)


def gather(tree: Tree, request: GatherRequest, context: StepContext, engine: BuildEngine) -> Gathered:
    """Find the spec and collect its sources. The engine asks rpm for them.

    Raises Ended if the tree, the spec, a list or a server makes that impossible; trouble as `download.fetch` and
    `BuildEngine.ask`.
    """
    state = _Gathering(tree=tree, request=request, context=context)
    folder = _folder(tree, request.source.subdir)
    state.spec_path = find_spec(tree, folder, request.source.spec)
    context.log.note(f"spec {shown(state.spec_path)}")
    state.folders = _source_folders(tree, folder, state.spec_path)
    _take_files(state, state.folders)
    _check_spec(state)
    _state_history(state)
    _read_lists(state, folder)
    _bring_sources(state, engine)
    members = tuple(
        Member(name=name, content=content, is_executable=name in state.executable)
        for name, content in state.files.items()
    )
    return Gathered(recipe=state.spec_name, stem=state.spec_name.removesuffix(".spec"), members=members)


def _bring_sources(state: _Gathering, engine: BuildEngine) -> None:
    """Bring the sources that rpm names, until it names no other once it has them."""
    asker = Asker(state.request, state.context, engine, state.spec_name)
    for _ in range(_ROUNDS):
        before = set(state.files)
        found = asker.ask(state.files, state.executable)
        if isinstance(found, Missing):
            _bring_read(state, found)
        else:
            _note_one_arch(state, found)
            for answer in found.values():
                _want_all(state, answer)
        _download(state)
        if before == set(state.files):
            return
    raise Ended(Outcome.FAILED, f"the spec names other sources each time it is read, also after {_ROUNDS} rounds")


def _note_one_arch(state: _Gathering, found: dict[Arch, Answer]) -> None:
    """A source package holds the sources of the arch for which it is made, whatever the farm does."""
    own = {item.label for item in found[state.request.arches[0]].sources}
    for arch, answer in found.items():
        if labels := [item.label for item in answer.sources if item.label not in own]:
            state.context.log.note(
                f"{', '.join(labels[:_SHOWN_SPECS])} is named for {arch} alone, so a source package made for "
                f"{state.request.arches[0]} does not hold it; name it for every arch"
            )


def _want_all(state: _Gathering, answer: Answer) -> None:
    if answer.withheld:
        raise Ended(
            Outcome.FAILED,
            f"the spec withholds {', '.join(answer.withheld[:_SHOWN_SPECS])} (NoSource, NoPatch), which makes "
            f"{NOSRC}; remove the tag from the spec",
        )
    urls = asking.urls_by_name(answer.sources)
    for listed in state.listed.values():
        state.context.check("looking for the listed sources")
        _want_listed(state, listed, urls)
    archive = answer.archive_of_tree
    for item in answer.sources:
        state.context.check("looking for the sources that the spec names")
        _want_source(state, item, archive)


def _bring_read(state: _Gathering, missing: Missing) -> None:
    """Want the files that rpm could not read while it read the spec, if they are sources; otherwise the error is
    rpm's."""
    before = set(state.files)
    urls = asking.urls_by_name(missing.known)
    for name in missing.names:
        if name in state.listed:
            _want_listed(state, state.listed[name], urls)
    for item in missing.known:
        if item.filename in missing.names:
            _want_source(state, item, None)
    if before == set(state.files) and not state.wanted:
        names = ", ".join(shown(name) for name in missing.names[:_SHOWN_SPECS])
        raise Ended(Outcome.FAILED, f"{missing.reason}; commit {names}, or give it as a Source with a URL")


def find_spec(tree: Tree, folder: str, named: str | None) -> str:
    """The spec's path. Raises Ended if there is none, or if there are several and `named` is None."""
    if named is not None:
        path = joined(folder, named)
        if path is None or not path.endswith(".spec") or not posixpath.basename(path).isprintable():
            raise Ended(Outcome.FAILED, f"spec {shown(named)!r} is not the relative path of a .spec file in the tree")
        if tree.file(path) is None:
            raise Ended(Outcome.FAILED, f"spec {shown(path)!r} is not in the tree at commit {tree.commit.id[:12]}")
        return path
    for place in (folder, below(folder, "SPECS")):
        names = sorted(name for name in tree.children(place) if name.endswith(".spec") and name.isprintable())
        if len(names) > 1:
            names = [name for name in names if _is_file(tree, below(place, name))]
        if len(names) > 1:
            known = ", ".join(shown(name) for name in names[:_SHOWN_SPECS])
            more = "" if len(names) <= _SHOWN_SPECS else f" and {len(names) - _SHOWN_SPECS} more"
            raise Ended(
                Outcome.FAILED,
                f"{len(names)} specs in {place or 'the tree'}: {known}{more}; say which with `spec`, or `subdir`",
            )
        if names and tree.file(below(place, names[0])):
            return below(place, names[0])
    raise Ended(
        Outcome.FAILED,
        f"no spec in {shown(folder) or 'the tree'} or its SPECS at commit {tree.commit.id[:12]}; "
        f"commit one, or say where it is with `subdir` or `spec`",
    )


def _is_file(tree: Tree, path: str) -> bool:
    try:
        return tree.file(path) is not None
    except Ended as ended:
        if ended.outcome is not Outcome.FAILED:
            raise
        return False


# --- the tree --------------------------------------------------------------------------------------------------------


def _folder(tree: Tree, subdir: str | None) -> str:
    folder = joined("", subdir or ".")
    if folder is None:
        raise Ended(Outcome.FAILED, f"subdir {shown(subdir or '')!r} is not a relative path within the tree")
    above = tree.submodule_above(folder) if folder else None
    if above:
        raise Ended(
            Outcome.FAILED,
            f"subdir {shown(folder)!r} is in the submodule {shown(above.path)!r}; give the submodule's own URL instead",
        )
    if not tree.has_folder(folder):
        raise Ended(Outcome.FAILED, f"subdir {shown(folder)!r} is not in the tree at commit {tree.commit.id[:12]}")
    return folder


def _source_folders(tree: Tree, folder: str, spec_path: str) -> list[str]:
    own, package = posixpath.dirname(spec_path), package_folder(spec_path)
    places = dict.fromkeys([own, below(package, "SOURCES"), below(folder, "SOURCES")])
    return [place for place in places if tree.has_folder(place)]


def _take_files(state: _Gathering, folders: Iterable[str]) -> None:
    """Take the files beside the spec and in SOURCES. Dot files (.gitignore) are left out unless the spec names them."""
    paths = {state.spec_name: state.spec_path}
    for folder in folders:
        for name in state.tree.children(folder):
            if name.startswith(".") or (name.endswith(".spec") and name != state.spec_name):
                continue
            if not name.isprintable():
                state.context.log.note(f"{shown(below(folder, name))}: left out, its name does not print")
            elif len(os.fsencode(name)) > _NAME_MAX_BYTES:
                state.context.log.note(f"{shown(below(folder, name))}: left out, its name is too long for a file")
            elif _own_file(state, below(folder, name)):
                paths.setdefault(name, below(folder, name))
    _take(state, paths)


def _own_file(state: _Gathering, path: str) -> Entry | None:
    """The file at a path that nothing has named so far; None for a bad link as well, which the log then tells."""
    try:
        return state.tree.file(path)
    except Ended as ended:
        if ended.outcome is not Outcome.FAILED:
            raise
        state.context.log.note(f"left out unless the spec names it: {ended.reason}")
        return None


def _take(state: _Gathering, paths: dict[str, str]) -> None:
    """Take files by name; a link to a folder, a dangling one, and a submodule are not files."""
    found = {name: entry for name, path in paths.items() if (entry := state.tree.file(path))}
    for name in found:
        _check_length(name)
    contents = state.tree.take(entry.path for entry in found.values())
    state.files.update({name: contents[entry.path] for name, entry in found.items()})
    state.executable.update(name for name, entry in found.items() if entry.is_executable)


def _check_spec(state: _Gathering) -> None:
    size_bytes = state.files[state.spec_name].size_bytes
    if size_bytes > _SPEC_MAX_BYTES:
        raise Ended(Outcome.OVER_LIMIT, f"spec {shown(state.spec_path)} has {size_bytes} bytes; no spec has so many")


def _state_history(state: _Gathering) -> None:
    """Write release and changelog into a spec that takes them from the history, before rpm is asked for the sources."""
    spec = state.files[state.spec_name]
    stated = autouse.with_history(state.spec_path, spec, state.tree, state.request, state.context)
    if stated is not None:
        state.files[state.spec_name] = stated


def _read_lists(state: _Gathering, folder: str) -> None:
    places = dict.fromkeys([posixpath.dirname(state.spec_path), package_folder(state.spec_path), folder])
    paths = [
        below(place, name)
        for place in places
        for name in state.tree.children(place)
        if name == "sources" or _METADATA.fullmatch(name)
    ]
    found = [entry.path for path in paths if (entry := _own_file(state, path))]
    for path, content in state.tree.take(found).items():
        if not settings_of(state.request.target).lookaside and not _is_list(state, content):
            state.context.log.note(f"{shown(path)} has no line of a list of sources: it is an ordinary file")
            continue
        if content.size_bytes > _LIST_MAX_BYTES:
            raise Ended(
                Outcome.OVER_LIMIT, f"{shown(path)} has {content.size_bytes} bytes; no list of sources has so many"
            )
        for listed in lookaside.parse(content.read(), where=shown(path)):
            # A file may be in both kinds of list, with different kinds of checksum; the first one that is read counts.
            state.listed.setdefault(listed.name, listed)


def _is_list(state: _Gathering, content: Content) -> bool:
    with content.open(state.context.stop) as stream:
        return lookaside.is_list(stream.read(min(content.size_bytes, _LIST_MAX_BYTES)))


# --- other sources of the spec ---------------------------------------------------------------------------------------


def _check_length(name: str) -> None:
    """Names in git and on servers can be too long for a file."""
    if len(os.fsencode(name)) > _NAME_MAX_BYTES:
        raise Ended(Outcome.FAILED, f"the name {shown(name)!r} is longer than a file's can be: {_NAME_MAX_BYTES} bytes")


def _want_listed(state: _Gathering, listed: Listed, named: Mapping[str, list[str]]) -> None:
    if listed.name in state.judged:
        return
    state.judged.add(listed.name)
    _check_length(listed.name)
    content = state.files.get(listed.name)
    if content is not None:
        _check_content(state, listed, content)
        return
    urls: list[str] = []
    cache = settings_of(state.request.target).lookaside
    if cache:
        # Dist-git usually names the spec after the repository; if the two differ, the cache uses the repository's name.
        packages = dict.fromkeys([state.spec_name.removesuffix(".spec"), state.request.source.guessed_name])
        urls = [lookaside.url_of(cache, package, listed) for package in packages]
    farm_urls = tuple(urls)
    urls += named.get(listed.name, [])
    fetchable = tuple(dict.fromkeys(url for url in urls if is_fetchable(url)))
    if not fetchable:
        raise Ended(
            Outcome.FAILED,
            f"{shown(listed.name)} is listed with a checksum, but the target {state.request.target.name} has no "
            f"lookaside and no Source URL ends with that name; give the target a lookaside or commit the file",
        )
    state.wanted[listed.name] = Wanted(name=listed.name, urls=fetchable, farm_urls=farm_urls, checksum=listed.checksum)


def _check_content(state: _Gathering, listed: Listed, content: Content) -> None:
    digest = hashlib.new(listed.checksum.algorithm, usedforsecurity=False)
    left = content.size_bytes
    with content.open(state.context.stop) as stream:
        while chunk := stream.read(min(left, _CHUNK_BYTES)):
            digest.update(chunk)
            left -= len(chunk)
    if digest.hexdigest() != listed.checksum.hexdigest:
        found = f"{listed.checksum.algorithm} {digest.hexdigest()}"
        raise Ended(
            Outcome.FAILED, f"{shown(listed.name)} in the tree has {found}, but is listed with {listed.checksum}"
        )
    state.context.log.note(f"{shown(listed.name)}: in the tree, {listed.checksum}; checksum is right")


def _want_source(state: _Gathering, item: NamedSource, archive: tuple[str, str] | None) -> None:
    name, log = item.filename, state.context.log
    if name in state.files or name in state.wanted:
        return
    if not name or not name.isprintable() or name in (".", ".."):
        raise Ended(Outcome.FAILED, f"{_shown(item)} does not end with a name that a file can have")
    _check_length(name)
    if item.url is None and _take_named(state, item.value, name):
        return
    if archive and name == archive[0]:
        log.note(f"{shown(name)}: made from the tree of commit {state.tree.commit.id}")
        made = tarball.of_tree(state.tree, name, archive[1], state.context)
        state.files[name] = Content(file=made, offset=0, size_bytes=made.stat().st_size)
    elif item.url and is_fetchable(item.url):
        state.wanted[name] = Wanted(name=name, urls=(item.url,))
    else:
        raise Ended(Outcome.FAILED, f"{_shown(item)} {_why_missing(state, item)}")


def _why_missing(state: _Gathering, item: NamedSource) -> str:
    found = (state.tree.entry(below(folder, item.filename)) for folder in state.folders)
    if link := next((entry for entry in found if entry and entry.is_link), None):
        target = shown(state.tree.link_target(link))
        return f"is a symlink to {target!r}, which is no file in the tree; commit that file"
    why = "is at a URL that is neither http nor https" if item.url else "is not in the tree and is no URL"
    return f"{why}; commit the file, list it in `sources`, or give its URL in the spec"


def _shown(item: NamedSource) -> str:
    return f"{item.label} {hide(item.url) if item.url else shown(item.value)}"


def _take_named(state: _Gathering, value: str, name: str) -> bool:
    """Take a source that is given by its path in the tree, or a dot file. rpmbuild looks for its last part beside the
    spec."""
    path = joined(posixpath.dirname(state.spec_path), value)
    if path:
        _take(state, {name: path})
    return name in state.files


def _download(state: _Gathering) -> None:
    if not state.wanted:
        return
    from workers.sources import download

    got = download.fetch(tuple(state.wanted.values()), state.context, state.tree.mirror.gateway.egress)
    for name, found in got.items():
        if isinstance(found, NotDownloaded):
            raise Ended(Outcome.FAILED, found.reason)
        state.files[name] = Content(file=found, offset=0, size_bytes=found.stat().st_size)
    state.wanted.clear()

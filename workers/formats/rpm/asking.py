"""rpm's own answer about the sources of a spec: the question, and the strict reading of the answer.

A root of the target runs the question (sources.sh) without network, on a copy of the spec whose last line runs
sources.lua. So rpm itself expands macros, takes branches and numbers sources. The spec runs in that root too and can
forge any answer. A forged answer names sources as an honest one does, so the gatherer checks each name and URL.
"""

import codecs
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import Target
from workers.core.context import Ended
from workers.formats.rpm import rpmbuild
from workers.formats.rpm.reason import above

#: The longest time that rpm may take to answer.
ASK_S = 900.0
#: The largest answer that is read, of one arch.
ANSWER_BYTES = 16 * 2**20
#: The folder of the sources in a root.
SOURCES_INSIDE = "/builddir/in"
#: The text in place of a file that a spec includes: it runs sources.lua.
QUESTION = b'\n%{lua:dofile(rpm.expand("%{_farm_question}"))}\n'
#: The text at the end of a spec. rpm knows the sources of a %sourcelist or %patchlist when the next section begins, so
#: sources.sh gives an empty one where rpm has such sections.
QUESTION_AT_END = b"\n%{_farm_section}" + QUESTION
_SOURCES_MAX = 100_000
_ARCHIVES = (".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst", ".tar")
_HEADER_START = b"\nfarm:header\n"
_SOURCE = re.compile(rb"(SOURCE|PATCH) ([0-9]{1,10}) ((?:[0-9a-f]{2})*) ((?:[0-9a-f]{2})*)")
_HEADER = re.compile(rb"(NAME|VERSION|NOSOURCE|NOPATCH) ([^\n]{1,4096})")
_ERROR = re.compile(rb"^error: ([^\n]+)", re.MULTILINE)
_QUERY_FAILED = b"query of specfile"
_EMPTY_TAG = b"Empty tag: "
_MENTIONED = re.compile(rb"/builddir/(?:in|build/SOURCES)/([^\s/:'\"]+)")


@dataclass(frozen=True, kw_only=True)
class AskRequest:
    """`folder` has the spec, whose name is `recipe`, with the question at its end, and the files beside it, all
    readable by anyone. The first of `arches` is that of the root."""

    target: Target
    arches: tuple[Arch, ...]
    options: BuildOptions
    folder: Path
    recipe: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """The end of the question. `headers` and `sources` are the files of answers by arch, None for one that is missing
    or too large. `said` is the end of rpm's output."""

    outcome: Outcome
    reason: str | None
    said: bytes
    headers: Mapping[Arch, bytes | None]
    sources: Mapping[Arch, bytes | None]


@dataclass(frozen=True, kw_only=True)
class NamedSource:
    """One source or patch. `value` is its text as rpm expanded it, `filename` the file that rpm looks for; empty if
    rpm takes no file name from the value."""

    label: str
    value: str
    filename: str

    @property
    def url(self) -> str | None:
        """The URL to download it from, without the fragment; None for a plain file name."""
        return self.value.partition("#")[0] if "://" in self.value else None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The sources for one arch, in rpm's order, sources first. `withheld` are the labels of NoSource and NoPatch."""

    name: str
    version: str
    sources: tuple[NamedSource, ...]
    withheld: tuple[str, ...] = ()

    @property
    def archive_of_tree(self) -> tuple[str, str] | None:
        """(file name, prefix) of the tarball of the repository itself; None if the spec has no such source.

        Source0 is this tarball if it is a plain file name, not a URL, and exactly name-version with the suffix of an
        archive: it can then only mean the tree that the spec is in.
        """
        first = next((one for one in self.sources if one.label == "Source0"), None)
        stem = f"{self.name}-{self.version}"
        if first is None or "/" in first.value or "/" in stem:
            return None
        return (first.value, stem) if first.value in [stem + ending for ending in _ARCHIVES] else None


def words(recipe: str, *, question: str) -> list[str]:
    """The last words of rpmspec's command line. `question` is the path of sources.lua in the root."""
    defines = rpmbuild.defines([("_sourcedir", SOURCES_INSIDE), ("_farm_question", question)])
    return [*defines, f"{SOURCES_INSIDE}/{recipe}"]


def answers(told: Told, arches: Sequence[Arch]) -> dict[Arch, Answer]:
    """The answers of a success, by arch; without the arches for which the spec failed. Raises Ended for an answer that
    is missing or does not parse."""
    found = {}
    for arch in arches:
        header, sources = told.headers.get(arch), told.sources.get(arch)
        if header is None and arch != arches[0]:
            continue
        if header is None or sources is None:
            raise Ended(
                Outcome.FAILED,
                f"rpm read the spec for {arch} and gave no list of its sources, or one of over {ANSWER_BYTES} bytes; "
                f"the spec must not print to standard output, end rpm, or redefine %lua while it is read",
            )
        found[arch] = _answer(header, sources)
    return found


def partial(told: Told, arch: Arch) -> tuple[NamedSource, ...]:
    """The sources that rpm knew when it read a file that asks; empty if it did not read any. Raises Ended."""
    sources = told.sources.get(arch)
    return () if sources is None else _sources(sources)


def urls_by_name(sources: Iterable[NamedSource]) -> Mapping[str, list[str]]:
    """The URLs that the spec has for each file name."""
    found: dict[str, list[str]] = defaultdict(list)
    for item in sources:
        if item.url:
            found[item.filename].append(item.url)
    return found


def mentioned(said: bytes) -> tuple[str, ...]:
    """The files beside the spec that rpm's output names."""
    return tuple(dict.fromkeys(_text(found[1]) for found in _MENTIONED.finditer(said)))


def parse_error(said: bytes) -> str | None:
    """rpm's message about the spec that it cannot read, and behind an empty tag the message of the program that was to
    fill it."""
    found = [one for one in _ERROR.finditer(said) if not one[1].startswith(_QUERY_FAILED)]
    if not found:
        return None
    # A program in %( ) that fails leaves nothing behind but its own message.
    cause = above(said, 0, found[-1].start()) if _EMPTY_TAG in found[-1][1] else ""
    mark = " (a byte order mark; save the file without one)" if codecs.BOM_UTF8 in found[-1][1] else ""
    return found[-1][1].decode(errors="backslashreplace") + cause + mark


def _answer(header: bytes, sources: bytes) -> Answer:
    tags: dict[bytes, list[str]] = {b"NAME": [], b"VERSION": [], b"NOSOURCE": [], b"NOPATCH": []}
    told = (b"\n" + header).rpartition(_HEADER_START)[2]
    _check_count(told)
    for line in told.splitlines():
        if tag := _HEADER.fullmatch(line):
            tags[tag[1]].append(_text(tag[2]))
    if len(tags[b"NAME"]) != 1 or len(tags[b"VERSION"]) != 1:
        raise Ended(Outcome.FAILED, "rpm read the spec and told no name and version of its source package")
    return Answer(
        name=tags[b"NAME"][0],
        version=tags[b"VERSION"][0],
        sources=_sources(sources),
        withheld=(*(f"Source{n}" for n in tags[b"NOSOURCE"]), *(f"Patch{n}" for n in tags[b"NOPATCH"])),
    )


def _sources(content: bytes) -> tuple[NamedSource, ...]:
    _check_count(content)
    found = []
    for line in content.splitlines():
        one = _SOURCE.fullmatch(line)
        if one is None:
            raise Ended(Outcome.FAILED, "the list of the spec's sources does not parse; the spec wrote to it")
        path, value = (_text(bytes.fromhex(one[number].decode())) for number in (3, 4))
        label = f"{one[1].decode().capitalize()}{int(one[2])}"
        # Without a file name, the path is that of the folder.
        name = "" if path.rstrip("/").endswith(SOURCES_INSIDE) else posixpath.basename(path)
        found.append(NamedSource(label=label, value=value, filename=name))
    return tuple(found)


def _check_count(lines: bytes) -> None:
    """A hostile answer has millions of lines: a list of them is many times larger than the answer."""
    if max(lines.count(b"\n"), lines.count(b"\r")) > _SOURCES_MAX:
        raise Ended(Outcome.OVER_LIMIT, f"the spec names more than {_SOURCES_MAX} sources")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")

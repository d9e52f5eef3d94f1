"""Reads a spec literally: the names of its source files, as far as they are known without running it.

Specs are hostile programs, and nothing here expands a macro that could execute. The spec is read line by line, with the
macros whose values are plain text in the spec or the request. A value that is not known that way is None, and left to
the build root, which runs the spec in a sandbox.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_EXPANSION_MAX_CHARS = 8192
_DEPTH_MAX = 16
_ENTRIES_MAX = 20_000
_EXPANDED_MAX_CHARS = 16 * 2**20  # the total of all expanded values
_LINE = re.compile(r"[^\n]*\n?")

_TAG = re.compile(r"(?P<tag>[A-Za-z]+)(?P<number>[0-9]*)[ \t]*:[ \t]*(?P<value>.*)")
_DEFINE = re.compile(r"[ \t]*%(?:global|define)[ \t]+(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<rest>.*)", re.DOTALL)
_MACRO = re.compile(r"%(?:(?P<bare>[A-Za-z_][A-Za-z0-9_]*)|\{\??(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\}|)")
_OPENS = re.compile(r"[ \t]*%if(?:arch|narch|os|nos)?\b")
_CLOSES = re.compile(r"[ \t]*%endif\b")
_SECTION = re.compile(
    r"%(?P<name>package|description|prep|generate_buildrequires|conf|build|install|check|clean|files|changelog|"
    r"sourcelist|patchlist|verifyscript|sepolicy|(?:pre|post)(?:un|trans|untrans)?|"
    r"(?:file)?trigger(?:un|in|prein|postun)?|transfiletrigger(?:un|in|postun)?)\b"
)
_KEPT_TAGS = ("name", "version", "url")
_ARCHIVES = (".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst", ".tar")


@dataclass(frozen=True, kw_only=True)
class SpecSource:
    """One `Source` or `Patch`. `value` is None if it cannot be read without running the spec; `written` is its text in
    the spec. `is_conditional` is true inside %if, where it may not apply to every target."""

    label: str
    written: str
    value: str | None
    is_conditional: bool

    @property
    def url(self) -> str | None:
        """The URL to download it from, without the fragment; None for a plain file name."""
        if self.value is None or "://" not in self.value:
            return None
        return self.value.partition("#")[0]

    @property
    def filename(self) -> str | None:
        """The file name that rpmbuild uses: everything after the last slash, with the fragment."""
        if self.value is None:
            return None
        return self.value.rpartition("/")[2] or None


@dataclass(frozen=True, kw_only=True)
class Spec:
    """`name` and `version` are None if they are not known."""

    name: str | None
    version: str | None
    sources: tuple[SpecSource, ...]

    @property
    def archive_of_tree(self) -> tuple[str, str] | None:
        """(file name, prefix) of the tarball of the repository itself; None if the spec has no such source.

        The first Source is this tarball if it is a plain file name, not a URL, and exactly name-version with the
        suffix of an archive: it can then only mean the tree that the spec is in.
        """
        if not (self.sources and self.name and self.version):
            return None
        first, stem = self.sources[0], f"{self.name}-{self.version}"
        if first.label != "Source0" or first.value is None or first.url or "/" in first.value or "/" in stem:
            return None
        if first.value not in [stem + ending for ending in _ARCHIVES]:
            return None
        return first.value, stem


@dataclass
class _Reader:
    """The state between two lines."""

    macros: dict[str, str | None]
    found: list[SpecSource] = field(default_factory=list)
    next_number: dict[str, int] = field(default_factory=lambda: {"Source": 0, "Patch": 0})
    section: str = "package"
    depth: int = 0
    left_chars: int = _EXPANDED_MAX_CHARS

    def line(self, line: str) -> None:
        """Read one logical line, which includes the lines that its backslashes continue."""
        if _OPENS.match(line):
            self.depth += 1
        elif _CLOSES.match(line):
            self.depth = max(0, self.depth - 1)
        elif defined := _DEFINE.fullmatch(line):
            self._define(defined["name"], defined["rest"])
        elif section := _SECTION.match(line):
            self.section = section["name"]
        elif self.section in ("sourcelist", "patchlist"):
            if line.strip() and not line.lstrip().startswith("#"):
                self._add("Source" if self.section == "sourcelist" else "Patch", "", line.strip())
        elif self.section == "package" and (tag := _TAG.fullmatch(line.strip())):
            self._tag(tag["tag"], tag["number"], tag["value"].strip())

    def _define(self, name: str, rest: str) -> None:
        """Record a macro. The value of a macro with arguments is not known."""
        self._keep(name, self._expand(rest.strip()) if rest[:1] in (" ", "\t") else None)

    def _tag(self, tag: str, number: str, value: str) -> None:
        lower = tag.lower()
        if lower in ("source", "patch"):
            self._add(lower.capitalize(), number, value)
        elif lower in _KEPT_TAGS and not number:
            expanded = self._expand(value)
            self._keep(lower, expanded)
            self._keep(lower.upper(), expanded)

    def _keep(self, name: str, value: str | None) -> None:
        """Inside %if a value counts only if it was the same before, since the branch that rpm takes is not known."""
        if name not in self.macros and len(self.macros) >= _ENTRIES_MAX:
            return
        self.macros[name] = value if not self.depth or self.macros.get(name) == value else None

    def _add(self, kind: str, number: str, value: str) -> None:
        at = int(number[:9]) if number else self.next_number[kind]
        self.next_number[kind] = at + 1
        if len(self.found) < _ENTRIES_MAX:
            source = SpecSource(
                label=f"{kind}{at}", written=value, value=self._expand(value), is_conditional=self.depth > 0
            )
            self.found.append(source)

    def _expand(self, text: str) -> str | None:
        """The text with its macros replaced; None if one of them is not known, or if the text has a literal %%."""
        for _ in range(_DEPTH_MAX):
            if len(text) > _EXPANSION_MAX_CHARS or self.left_chars < 0:
                self.left_chars -= len(text)  # the cost to make it
                return None
            if "%" not in text:
                self.left_chars -= len(text)
                return text
            parts, at = [], 0
            for macro in _MACRO.finditer(text):
                value = self.macros.get(macro["bare"] or macro["braced"] or "")
                if value is None:
                    return None
                parts += [text[at : macro.start()], value]
                at = macro.end()
            text = "".join([*parts, text[at:]])
        return None


def read(content: bytes, *, defines: Iterable[tuple[str, str]] = ()) -> Spec:
    """Read the spec. `defines` are the macros of target and request; the spec's own replace them.

    Never raises for the content of the spec; bytes that are not UTF-8 are kept as they are.
    """
    reader = _Reader(macros=dict(defines))
    pending = ""
    for found in _LINE.finditer(content.decode("utf-8", "surrogateescape")):
        line = found[0].removesuffix("\n").removesuffix("\r")
        if line.endswith("\\"):
            pending += line[:-1] + "\n"
            continue
        reader.line(pending + line)
        pending = ""
    reader.line(pending)
    return Spec(name=reader.macros.get("name"), version=reader.macros.get("version"), sources=tuple(reader.found))

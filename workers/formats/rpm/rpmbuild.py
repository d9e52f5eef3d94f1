"""rpmbuild's options for a target and a build, and the meaning of its output. Starts no processes."""

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from farm.formats.rpm.settings import settings_of
from farm.model.build import BuildOptions
from farm.model.target import Target
from workers.core.run import TAIL_BYTES
from workers.core.text import shown

#: The folder of the programs that run in a sandbox.
SCRIPTS = Path(__file__).parent
#: rpmbuild's exit code when the root lacks packages, from rpm 4.15 on.
_MISSING_REQUIRES = 11
HEADER_BYTES = 16 * 2**20
_LINES = 100_000
_NAMED = 5
_LINE_CHARS = 4096
_EXCLUDED = re.compile(rb"^error: (?:Architecture|OS) is (?:not included|excluded): [^\n]+", re.MULTILINE)
_SCRIPT_RAN = b"Executing(%"
_UNMET = re.compile(rb"^\t(?P<what>[^\n]{1,300}) is needed by [^\n]+$", re.MULTILINE)
_CONFLICTS = re.compile(rb"^\t(?P<what>[^\n]{1,300} conflicts with [^\n]{1,300})$", re.MULTILINE)
_WROTE = re.compile(rb"^Wrote: (?P<path>/[^\n]{1,400}\.rpm)$", re.MULTILINE)
_OWN_MACROS = (
    ("_topdir", "/builddir/build"),
    ("_rpmdir", "/builddir/results"),
    ("_build_name_fmt", "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"),
)


class BadHeader(ValueError):
    """The BuildRequires have something that cannot be a requirement."""


def options(target: Target, build: BuildOptions, *, source_packages_to: str) -> list[str]:
    """Options for rpmbuild and rpmspec. The farm's folders come last, so that no macro of a build changes them."""
    settings = settings_of(target)
    macros = [*settings.macros, *build.defines, *_OWN_MACROS, ("_srcrpmdir", source_packages_to)]
    macros.append(("_dbpath", settings.rpmdb))
    words = defines(macros)
    words += [word for name in build.with_ for word in ("--with", name)]
    return words + [word for name in build.without for word in ("--without", name)]


def defines(macros: Iterable[tuple[str, str]]) -> list[str]:
    """The options that define macros, each a name and a body."""
    return [word for name, body in macros for word in ("--define", f"{name} {body}")]


def requirements(values: Sequence[str]) -> tuple[str, ...]:
    """The requirements, each once, in order, without those on rpm itself."""
    return tuple(dict.fromkeys(value for value in values if not value.startswith("rpmlib(")))


def parse_requirements(text: bytes) -> tuple[str, ...]:
    """Parse the output of rpms.sh: one requirement a line. Raises BadHeader."""
    lines = text.decode("ascii", errors="backslashreplace").split("\n")
    if len(lines) > _LINES or any(len(line) > _LINE_CHARS for line in lines):
        raise BadHeader(f"the spec has more than {_LINES} BuildRequires, or one of over {_LINE_CHARS} bytes")
    return requirements([" ".join(line.split()) for line in lines if line.strip()])


def may_lack(code: int | None, tail: bytes) -> bool:
    """Whether rpmbuild ended because the root lacks packages. Older versions only say so, and a recipe may say it too,
    which costs it another round."""
    return code == _MISSING_REQUIRES or (code == 1 and bool(unmet(tail)))


def unsettled(rounds: int, more: Collection[str]) -> str:
    """The reason of a spec that states other BuildRequires each time that they are installed."""
    names = ", ".join(shown(name) for name in sorted(more)[:_NAMED])
    return (
        f"the BuildRequires do not settle: after {rounds} rounds, each with those of the round before installed, the "
        f"spec still asks for {names}"
    )


def excluded(said: bytes) -> str | None:
    """rpmbuild's message if the spec excludes the arch; None for output that a recipe may have written."""
    # rpmbuild refuses before it runs any script, and writes little. The start of a long output may be missing.
    if _SCRIPT_RAN in said or len(said) >= TAIL_BYTES:
        return None
    found = _EXCLUDED.search(said)
    return found[0].decode(errors="backslashreplace").removeprefix("error: ") if found else None


def unmet(tail: bytes) -> tuple[str, ...]:
    """The packages that rpmbuild found missing in the root."""
    if b"error: Failed build dependencies:" not in tail:
        return ()
    return tuple(found["what"].decode(errors="backslashreplace") for found in _UNMET.finditer(tail))


def conflicts(tail: bytes) -> tuple[str, ...]:
    """The packages of the root that the spec's BuildConflicts rule out, as rpmbuild names them."""
    if b"error: Failed build dependencies:" not in tail:
        return ()
    return tuple(found["what"].decode(errors="backslashreplace") for found in _CONFLICTS.finditer(tail))


def written_elsewhere(tail: bytes, folder: str, *, is_source: bool = False) -> str | None:
    """A package that rpmbuild says it wrote, directly in another folder than this one; None if there is none. Source
    packages count only with `is_source`, and then alone."""
    for found in _WROTE.finditer(tail):
        path = found["path"].decode(errors="backslashreplace")
        if path.rpartition("/")[0] != folder and path.endswith(".src.rpm") is is_source:
            return path
    return None

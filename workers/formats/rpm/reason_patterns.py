"""The error messages of the tools of a package build: data for workers/formats/rpm/reason.py, which owns the search.

A pattern is found by its `needle`, bytes that the line must hold, so that a log of any size is searched at the speed
of memory; only lines with the needle are decoded and matched. In a table more specific patterns come first.
Regular expressions here are matched from the start of a line of bounded length, and none nests one repetition
in another.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """One way to fail.

    `say` is the reason, made of the expression's named groups and `{line}`; `{items}` are the named group `item` of the
    lines after it that match `item`; lines that match `skip` are left out. `last` takes the last match in the log
    instead of the first, for tools with a summary at the end.
    """

    needle: bytes
    line: re.Pattern[str]
    say: str = "{line}"
    phase: str = ""
    item: re.Pattern[str] | None = None
    skip: re.Pattern[str] | None = None
    items_max: int = 5
    last: bool = False


def _of(needle: str, line: str | None = None, say: str = "{line}", **more: object) -> Pattern:
    expression = re.compile(line if line is not None else f".*{re.escape(needle)}")
    for name in ("item", "skip"):
        if isinstance(text := more.get(name), str):
            more[name] = re.compile(text)
    return Pattern(needle=needle.encode(), line=expression, say=say, **more)  # type: ignore[arg-type]


_NO_NETWORK = "{line} (builds have no network: name it as a Source, or BuildRequire it)"
_SIGNALS = "Hangup|Killed|Terminated|Segmentation fault|Aborted|Bus error|Illegal instruction|Floating point exception"

#: Searched first, in the output of the failing phase: failures of the environment, which explain later messages.
SURROUNDINGS = (
    _of("No space left on device"),
    _of("Disk quota exceeded"),
    _of("File too large", r".*: File too large\b"),
    _of("Killed signal terminated program", say="{line} (most often the memory limit)"),
    _of("annot allocate memory"),
    _of("out of memory", r"(?:.*: )?(?:fatal error: )?(?:virtual memory exhausted|out of memory)\b.*"),
    _of("virtual memory exhausted"),
    _of("java.lang.OutOfMemoryError"),
    _of("fork: ", r".*fork: (?:retry: )?Resource temporarily unavailable", "{line} (the process limit)"),
    _of("/rpm-tmp.", rf"\S*/rpm-tmp\.\w+: line \d+: +\d+ (?P<how>{_SIGNALS})(?P<rest>.*)", "{how}: {rest}"),
    _of("ould not resolve host", say=_NO_NETWORK),
    _of("emporary failure in name resolution", say=_NO_NETWORK),
    _of("Temporary failure resolving", say=_NO_NETWORK),
    _of("Name or service not known", say=_NO_NETWORK),
    _of("etwork is unreachable", say=_NO_NETWORK),
    _of("dial tcp", r".*\bdial tcp\b.*", _NO_NETWORK),
    _of("getaddrinfo E", r".*getaddrinfo E[A-Z_]+\b.*", _NO_NETWORK),
)

_MISSING_TOOL = (
    _of(
        "command not found",
        r"(?:.*: )?(?P<tool>[^\s:]+): command not found",
        "{tool}: command not found (is it in BuildRequires?)",
    ),
    _of(": not found", r".*: \d+: (?P<tool>[^\s:]+): not found", "{tool}: command not found (is it in BuildRequires?)"),
    _of("bad interpreter"),
    _of("/usr/bin/env: ", r"/usr/bin/env: (?P<tool>.+): No such file or directory", "{line} (is it in BuildRequires?)"),
)

_FILES = (
    _of(": No such file or directory", r"[\w./+-]+: .*: No such file or directory"),
    _of("Permission denied", say="{line} (only the build folder and the build root can be written)"),
    _of("Read-only file system", say="{line} (only the build folder and the build root can be written)"),
)

_PREP = (
    _of("Bad source", r"error: Bad (?:source|file): (?P<what>.*)", "missing source: {what}"),
    _of("Bad file", r"error: Bad (?:source|file): (?P<what>.*)", "missing source: {what}"),
    _of("error: File ", r"error: File (?P<what>.*: No such file or directory)", "missing source: {what}"),
    _of(
        " FAILED -- saving rejects",
        r"\d+ out of \d+ hunks? FAILED -- saving rejects .*",
        "patch does not apply: {line}",
    ),
    _of("Hunk #", r"Hunk #\d+ FAILED at .*", "patch does not apply: {line}"),
    _of("can't find file to patch", say="patch does not apply: {line}"),
    _of("Reversed (or previously applied)", say="patch does not apply: {line}"),
    _of("malformed patch at line"),
    _of("error: patch failed:", say="patch does not apply: {line}"),
    _of("not in gzip format"),
    _of("not look like a tar archive"),
    _of("nexpected EOF in archive"),
    _of("nexpected end of file"),
    _of("File format not recognized"),
    _of("End-of-central-directory signature not found", say="not a zip archive: {line}"),
    _of("gpgv: ", r"gpgv: (?:BAD signature|Can't check signature).*"),
    _of(
        ": cd: ",
        r".*: cd: (?P<folder>.+): No such file or directory",
        "the archive has no folder {folder} (see %setup -n)",
    ),
    _of("cd: can't cd to ", r".*cd: can't cd to (?P<folder>.+)", "the archive has no folder {folder} (see %setup -n)"),
    *_MISSING_TOOL,
    *_FILES,
)

_COMPILE = (
    _of("CMake Error", r"CMake Error.*", "{line} {items}", item=r" +(?P<item>\S.*)", skip=r"\s*$", items_max=2),
    _of("configure: error: "),
    _of("ERROR: ", r"(?:\S*meson\.build:\d+:\d+: )ERROR: .*"),
    _of("No package '", r"No package '.*' found", "pkg-config: {line} (is it in BuildRequires?)"),
    _of("required by 'virtual:world'", say="pkg-config: {line} (is it in BuildRequires?)"),
    _of("error: ", r"(?!error:|make)[^\s:][^:]*:\d+:(?:\d+:)? (?:fatal )?error: .*"),
    _of("error[E", r"error\[E\d+\]: .*"),
    _of("error: ", r"error: (?:could not compile|no matching package named|linking with) .*"),
    _of("undefined reference to"),
    _of("undefined symbol: "),
    _of("cannot find -l", say="{line} (is its -devel package in BuildRequires?)"),
    _of("multiple definition of"),
    _of(".go:", r"\S+\.go:\d+:\d+: .*"),
    _of("internal compiler error"),
    _of("Assembler messages", r".*Assembler messages:", "{line} {items}", item=r"(?P<item>.*: Error: .*)", items_max=1),
    _of("*** No rule to make target"),
    _of("*** No targets", r"make.*: \*\*\* No targets.*"),
    _of("Makefile:", r"[^\s:]*Makefile[^\s:]*:\d+: \*\*\* .*"),
)

_PYTHON = (
    _of(
        "Traceback (most recent call last)",
        say="{items}",
        item=r"(?P<item>[A-Za-z_][\w.]*(?:: .*)?)$",
        skip=r"\s.*",
        items_max=1,
        last=True,
    ),
)

_SUMMED_UP = (
    _of("FAILED: ", r"FAILED: .*"),
    _of("*** [", r"make(?:\[\d+\])?: \*\*\* \[.*"),
    _of("ninja: build stopped"),
)

_INSTALL = (
    _of("find-debuginfo", r".*find-debuginfo(?:\.sh)?: (?P<what>line .*)", "find-debuginfo: {what}"),
    _of("debugedit: "),
    _of("*** ERROR: No build ID note", say="debug information: {line}"),
    _of("*** ERROR: ambiguous python shebang"),
    _of("contains an invalid rpath", say="{line} (see check-rpaths)"),
    _of("in installed files; aborting", say="{line} (the build root's path got into a file)"),
    _of("*** ERROR: "),
)

_CHECK = (
    _of("--- FAIL: ", r"\s*--- FAIL: .*"),
    _of("FAILED ", r"FAILED \S+::.*"),
    _of("... FAILED", r"test .* \.\.\. FAILED"),
    _of("FAIL: ", r"(?:\d+/\d+ )?FAIL: .*"),
    _of("ERROR: ", r"ERROR: \w+ \(.*\)"),
    _of("not ok ", r"\s*not ok \d+(?!.*# (?:TODO|SKIP)).*"),
    _of("tests failed out of", last=True),
    _of("tests FAILED:", r"The following tests FAILED:", "{line} {items}", item=r"\s*(?P<item>\d+ - .*)"),
    _of("Result: FAIL", last=True),
    _of("test result: FAILED", last=True),
    _of(" failed", r"=+ .*\b\d+ failed\b.*", last=True),
    _of("FAILED (", r"FAILED \((?:failures|errors)=.*", last=True),
    _of("*** Failed test", last=True),
    _of(" FAIL ", r"\s*\d+/\d+ .*\bFAIL\b.*"),
)

#: Patterns for the output of the failing phase, by the phase's name; any other phase is searched like %build.
OF_PHASE: dict[str, tuple[Pattern, ...]] = {
    "%prep": (*_PREP, *_PYTHON),
    "%build": (*_COMPILE, *_MISSING_TOOL, *_PYTHON, *_SUMMED_UP, *_FILES),
    "%install": (*_INSTALL, *_COMPILE, *_MISSING_TOOL, *_PYTHON, *_FILES, *_SUMMED_UP),
    "%check": (*_CHECK, *_COMPILE, *_MISSING_TOOL, *_PYTHON, *_SUMMED_UP, *_FILES),
}

_DEPENDENCIES = (
    _of(
        "Failed build dependencies",
        r"error: Failed build dependencies:",
        "unmet BuildRequires: {items}",
        item=r"\s+(?P<item>.+?) is needed by \S+$",
        last=True,
    ),
    _of("nothing provides", r".*nothing provides (?:requested )?(?P<what>.+)", "nothing provides {what}"),
    _of(
        "No matching package to install",
        r".*No matching package to install: '(?P<what>.+)'",
        "nothing provides {what}, {items}",
        item=r".*No matching package to install: '(?P<item>.+)'",
        skip=r"Package .* is already installed",
    ),
    _of(
        "No match for argument",
        r".*No match for argument: (?P<what>.+)",
        "nothing provides {what}, {items}",
        item=r".*No match for argument: (?P<item>.+)",
    ),
    _of("Unable to find a match", r".*Unable to find a match: (?P<what>.+)", "nothing provides {what}"),
    _of("No Package found for", r".*No Package found for (?P<what>.+)", "nothing provides {what}"),
    _of("none of the providers can be installed"),
    _of("cannot install both"),
    _of(" conflicts with ", r".*(?:package|file) .* conflicts with .*"),
    _of("ailed to download metadata for repo"),
    _of("No more mirrors to try"),
    _of("Insufficient space in download directory"),
    _of("Public key for ", r".*Public key for .* is not (?:installed|trusted).*"),
    _of("GPG check FAILED"),
)
_SPEC = (
    _of("No compatible architectures found"),
    _of("error: Architecture is ", r"error: Architecture is (?:excluded|not included): .*"),
    _of("error: ", r"error: (?:\S+\.spec: )?line \d+: .*"),
    _of("not in descending chronological order"),
    _of("bad date in %changelog", r"error: .*bad date in %changelog.*"),
    _of(
        "error: ",
        r"error: (?:Unclosed %if|Macro %\S+|Too many levels of recursion|lua script failed|failed to expand).*",
    ),
    _of("field must be present"),
    _of("error: Package has no "),
    _of(
        "error: No ",
        r"error: No \"?(?:Name|Version|Release|Summary|License|%description|source number|patch number)\b.*",
    ),
    _of("error: Duplicate ", r"error: Duplicate .* entr.*"),
    _of("error: Unable to open ", r"error: Unable to open \S+\.spec\b.*"),
    _of("not an rpm package", say="{line} (the file is damaged or no RPM)"),
    _of("error: unpacking of archive failed"),
    _of(": BAD", r"error: \S+\.rpm: .*: BAD, .*", "{line} (the file is damaged)"),
    _of("cannot be installed", r"error: .*\.src\.rpm cannot be installed", "{line} (the file is damaged or no RPM)"),
    _of("Bad source", r"error: Bad (?:source|file): (?P<what>.*)", "missing source: {what}"),
    _of("Bad file", r"error: Bad (?:source|file): (?P<what>.*)", "missing source: {what}"),
    _of("error: File ", r"error: File (?P<what>(?!not found).*: No such file or directory)", "missing source: {what}"),
    _of("query of specfile"),
)
_FILES_SECTION = (
    _of(
        "Installed (but unpackaged)",
        r"error: Installed \(but unpackaged\) file\(s\) found:",
        "installed but unpackaged: {items}",
        item=r"\s+(?P<item>/.*)",
        last=True,
    ),
    _of(
        "not found",
        r"error: (?P<what>(?:File|Directory) not found(?: by glob)?: )"
        r"(?:/.*/BUILDROOT(?:/[^/]+-[^/]+-[^/]+\.[a-z0-9_]+)?(?=/))?(?P<path>.*)",
        "{what}{path}",
    ),
    _of("error: Empty %files file", say="{line} (nothing was compiled with -g)"),
    _of("error: Could not open %files file"),
    _of("error: File must begin with"),
    _of("error: Not a directory: "),
    _of("error: Explicit ", r"error: Explicit .*"),
    _of("error: Arch dependent binaries in noarch package"),
    _of(
        "error: ",
        r"error: (?:Two files on one line|Bad \S+ (?:mode|owner|group|spec)|Missing |Illegal char|Invalid ).*",
    ),
    _of("invalid utf-8 encoding", r"error: .*"),
)

#: Patterns for the whole log, if no phase's script failed: (the phase's name, the patterns).
ANYWHERE: tuple[tuple[str, tuple[Pattern, ...]], ...] = (
    ("%files", _FILES_SECTION),
    ("dependencies", _DEPENDENCIES),
    ("spec", _SPEC),
    ("limits", SURROUNDINGS),
    ("timeout", (_of("commandTimeoutExpired", r".*commandTimeoutExpired: (?P<what>.*)", "{what}"),)),
    (
        "",
        (
            *_COMPILE[:3],
            *_PYTHON,
            # Build roots have no database that rpmbuild could open, which it says each time and which does no harm.
            _of("error: ", r"error: (?!Bad exit status|Unable to open sqlite|cannot open Packages).*", last=True),
            _of("rror: ", r"(?:[\w./-]+: )?(?:E|Fatal e|fatal e)rror: .*|[\w./-]+: error: .*", last=True),
            _of("ERROR: ", r"ERROR: .*", last=True),
            _of("atal: ", r"(?:[\w./-]+: )?[Ff]atal: .*", last=True),
        ),
    ),
)

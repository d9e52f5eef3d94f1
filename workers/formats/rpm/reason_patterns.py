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
    instead of the first, for tools with a summary at the end. With `needs_items` a match without items does not count.

    `before` names lines before the match by their needle, whose named groups `say` may use, and which may be missing.
    With `has_cause_above`, `{above}` is the message in the line just above, in parentheses. With `is_indented`, items
    begin as the line does, up to the needle: a tool can indent or prefix the output of another.
    """

    needle: bytes
    line: re.Pattern[str]
    say: str = "{line}"
    phase: str = ""
    item: re.Pattern[str] | None = None
    skip: re.Pattern[str] | None = None
    items_max: int = 5
    last: bool = False
    needs_items: bool = False
    before: tuple[tuple[bytes, re.Pattern[str]], ...] = ()
    has_cause_above: bool = False
    is_indented: bool = False


def of(needle: str, line: str | None = None, say: str = "{line}", **more: object) -> Pattern:
    """A pattern whose expressions are text. Without `line`, the needle may be anywhere in the line."""
    expression = re.compile(line if line is not None else f".*{re.escape(needle)}")
    if before := more.get("before"):
        more["before"] = tuple((needle.encode(), re.compile(line)) for needle, line in before)  # type: ignore[attr-defined]
    for name in ("item", "skip"):
        if isinstance(text := more.get(name), str):
            more[name] = re.compile(text)
    return Pattern(needle=needle.encode(), line=expression, say=say, **more)  # type: ignore[arg-type]


_NO_NETWORK = "{line} (builds have no network: name it as a Source, or BuildRequire it)"
_SIGNALS = "Hangup|Killed|Terminated|Segmentation fault|Aborted|Bus error|Illegal instruction|Floating point exception"

#: Searched first, in the output of the failing phase: failures of the environment, which explain later messages.
SURROUNDINGS = (
    of("No space left on device"),
    of("Disk quota exceeded"),
    of("File too large", r".*: File too large\b"),
    of("Assertion `", r".*Assertion `.*' failed.*"),
    of("Killed signal terminated program", say="{line} (most often the memory limit)"),
    of("annot allocate memory"),
    of("out of memory", r"(?:.*: )?(?:fatal error: )?(?:virtual memory exhausted|out of memory)\b.*"),
    of("virtual memory exhausted"),
    of("java.lang.OutOfMemoryError"),
    of("fork: ", r".*fork: (?:retry: )?Resource temporarily unavailable", "{line} (the process limit)"),
    of("/rpm-tmp.", rf"\S*/rpm-tmp\.\w+: line \d+: +\d+ (?P<how>{_SIGNALS})(?P<rest>.*)", "{how}: {rest}"),
    of("ould not resolve host", say=_NO_NETWORK),
    of("emporary failure in name resolution", say=_NO_NETWORK),
    of("Temporary failure resolving", say=_NO_NETWORK),
    of("Name or service not known", say=_NO_NETWORK),
    of("etwork is unreachable", say=_NO_NETWORK),
    of("dial tcp", r".*\bdial tcp\b.*", _NO_NETWORK),
    of("getaddrinfo E", r".*getaddrinfo E[A-Z_]+\b.*", _NO_NETWORK),
)

#: The name of the patch that is applied: as %patch traces or prints it, as %autosetup unpacks it, or git am's title.
_PATCH = (
    ("rpmuncompress ", r"\+ .*rpmuncompress (?:-\S+ )*\S*/(?P<patch>[^/\s]+)"),
    ("Patch #", r"(?:\+ .*)?Patch #\d+ \((?P<patch>[^)]+)\)"),
    ("Applying: ", r"Applying: (?P<patch>.+)"),
)
_PATCH_SAYS = "patch {patch} does not apply: {line}"
_PATCHED = (*_PATCH, ("patching file ", r"patching file (?P<file>.*)"))
_CRLF = "the script has CR LF line ends: convert it, for example with dos2unix ({line})"

_MISSING_TOOL = (
    of("\\r': command not found", say=_CRLF),
    of("^M: bad interpreter", say=_CRLF),
    of(
        "cannot execute: required file not found",
        r".*: (?P<file>\S+): cannot execute: required file not found",
        "{file}: cannot execute: the interpreter in its first line is not there, or the line ends with CR LF"
        " (is it in BuildRequires?)",
    ),
    of(
        "command not found",
        r"(?:.*: )?(?P<tool>[^\s:]+): command not found",
        "{tool}: command not found (is it in BuildRequires?)",
    ),
    of(": not found", r".*: \d+: (?P<tool>[^\s:]+): not found", "{tool}: command not found (is it in BuildRequires?)"),
    of("bad interpreter"),
    of(
        ": syntax error",
        r"\S*/rpm-tmp\.\w+: line \d+: (?P<what>syntax error.*)",
        "the shell cannot read the script: {what}: {items}",
        item=r"\S*/rpm-tmp\.\w+: line \d+: (?P<item>`.*')$",
    ),
    of("/usr/bin/env: ", r"/usr/bin/env: (?P<tool>.+): No such file or directory", "{line} (is it in BuildRequires?)"),
)

#: Messages that many commands write, also about files that they can do without: looked for after the others.
FILES = (
    of(": No such file or directory", r"[\w./+-]+: .*: No such file or directory"),
    of("Permission denied", say="{line} (only the build folder and the build root can be written)"),
    of("Read-only file system", say="{line} (only the build folder and the build root can be written)"),
)

_PREP = (
    of("Reversed (or previously applied)", say="patch {patch} does not apply: {file}: {line}", before=_PATCHED),
    of(
        ": Is a directory",
        r"error: File (?P<what>\S+): Is a directory",
        "{what} is a folder, not a file: a Source names no file, as a URL that ends with a slash does",
    ),
    of("Bad source", r"error: Bad (?:source|file): (?P<what>.*)", "missing source: {what}"),
    of("Bad file", r"error: Bad (?:source|file): (?P<what>.*)", "missing source: {what}"),
    of("error: File ", r"error: File (?P<what>.*: No such file or directory)", "missing source: {what}"),
    of(
        " FAILED -- saving rejects",
        r"\d+ out of \d+ hunks? FAILED -- saving rejects .*",
        _PATCH_SAYS,
        before=_PATCH,
    ),
    of("Hunk #", r"Hunk #\d+ FAILED at .*", "patch {patch} does not apply: {file}: {line}", before=_PATCHED),
    of("can't find file to patch", say=f"{_PATCH_SAYS} (see the number in %patch -p)", before=_PATCH),
    of("malformed patch at line", say=_PATCH_SAYS, before=_PATCH),
    of("Only garbage was found in the patch input", say=_PATCH_SAYS, before=_PATCH),
    of("unexpectedly ends in middle of line", say=_PATCH_SAYS, before=_PATCH),
    of("error: patch failed:", say=_PATCH_SAYS, before=_PATCH),
    of("error: ", r"error: .*: (?:patch does not apply|does not exist in index)", _PATCH_SAYS, before=_PATCH),
    of("corrupt patch at line", say=_PATCH_SAYS, before=_PATCH),
    of("not in gzip format"),
    of("error: File ", r"error: File .* is smaller than \d+ bytes"),
    of("nexpected EOF in archive"),
    of("nexpected end of file"),
    of("File format not recognized"),
    of("End-of-central-directory signature not found", say="not a zip archive: {line}"),
    of("gpgv: ", r"gpgv: (?:BAD signature|Can't check signature).*"),
    of(
        ": cd: ",
        r".*: cd: (?P<folder>.+): No such file or directory",
        "the archive has no folder {folder} (see %setup -n)",
    ),
    of("cd: can't cd to ", r".*cd: can't cd to (?P<folder>.+)", "the archive has no folder {folder} (see %setup -n)"),
    *_MISSING_TOOL,
    of("not look like a tar archive"),
)

COMPILE = (
    of("configure:", r"configure:\d+: error: (?!in ).*"),
    of(
        "configure: error: in ",
        r"configure: error: in .*",
        "{items}",
        item=r"(?P<item>configure: error: .*)",
        items_max=1,
    ),
    of(
        "CMake Error at ",
        r"CMake Error at .*FindPkgConfig\.cmake.*",
        "{package} (is it in BuildRequires?; {line} {items})",
        before=(("ackage '", r"(?:-- *)?(?P<package>(?:No p|P)ackage '.*)"),),
        item=r" +(?P<item>\S.*)",
        skip=r"\s*$",
        items_max=2,
    ),
    of("CMake Error", r"CMake Error.*", "{line} {items}", item=r" +(?P<item>\S.*)", skip=r"\s*$", items_max=2),
    of("configure: error: "),
    of("ERROR: ", r"(?:\S*meson\.build:\d+:\d+: )ERROR: .*"),
    of("No package '", r"No package '.*' found", "pkg-config: {line} (is it in BuildRequires?)"),
    of("required by 'virtual:world'", say="pkg-config: {line} (is it in BuildRequires?)"),
    of("error: ", r"(?!error:|make|conftest|_configtest)[^\s:][^:]*:\d+:(?:\d+:)? (?:fatal )?error: .*"),
    of("error[E", r"error\[E\d+\]: .*"),
    of("undefined reference to"),
    of("undefined symbol: "),
    of("cannot find -l", say="{line} (is its -devel package in BuildRequires?)"),
    of("multiple definition of"),
    of("error: ", r"error: (?:no matching package named|linking with) .*"),
    of(".go:", r"\S+\.go:\d+:\d+: .*"),
    of("internal compiler error"),
    of("Assembler messages", r".*Assembler messages:", "{line} {items}", item=r"(?P<item>.*: Error: .*)", items_max=1),
    of("*** No rule to make target"),
    of("*** No targets", r"make.*: \*\*\* No targets.*"),
    of("Makefile:", r"[^\s:]*Makefile[^\s:]*:\d+: \*\*\* .*"),
)

PYTHON = (
    of(
        "prerequisites not found",
        say="{line} {items} (is it in BuildRequires?)",
        item=r"\s+(?P<item>\S.*)",
        needs_items=True,
    ),
    of("No matching distribution found for", say=_NO_NETWORK),
    of("failed to load external entity", say=_NO_NETWORK),
    of("ModuleNotFoundError: ", r"(?P<what>ModuleNotFoundError: .*)", "{what}", last=True),
    of(
        "Traceback (most recent call last)",
        say="{items}",
        item=r"(?P<item>[A-Za-z_][\w.]*(?:: .*)?)$",
        skip=r"\s.*",
        items_max=1,
        last=True,
        is_indented=True,
    ),
)

_INSTALL = (
    of("find-debuginfo", r".*find-debuginfo(?:\.sh)?: (?P<what>line .*)", "find-debuginfo: {what}"),
    of("debugedit: "),
    of("*** ERROR: No build ID note", say="debug information: {line}"),
    of("*** ERROR: ambiguous python shebang"),
    of("contains an invalid rpath", say="{line} (see check-rpaths)"),
    of(
        "in installed files; aborting",
        say="{line}{above} (the build root's path got into a file)",
        has_cause_above=True,
    ),
    of("*** ERROR: "),
)

_CHECK = (
    of("--- FAIL: ", r"\s*--- FAIL: .*"),
    of("FAILED ", r"FAILED \S+::.*"),
    of("... FAILED", r"test .* \.\.\. FAILED"),
    of("[  FAILED  ] ", r"(?:\d+: )?\[  FAILED  \] [A-Za-z].*"),
    of(" -> ", r"(?:Failure|Error) -> .*", "{line}: {items}", item=r"(?P<item>\S.*)", items_max=2),
    of("FAIL: ", r"(?:\d+/\d+ )?FAIL: .*"),
    of("ERROR: ", r"ERROR: (?:[\w.]+ \(.*\)|[\w./-]+(?: - .*)?$)"),
    of("not ok ", r"\s*not ok \d+(?!.*# (?:TODO|SKIP)).*"),
    of(
        "tests failed out of",
        say="{line}: {items}",
        last=True,
        item=r"\s*(?P<item>\d+ - .*)",
        skip=r"(?!Errors while running).*",
    ),
    of("Failed test", r"#\s+Failed test .*"),
    of("rspec ./", r"rspec \./.*"),
    of("Failed example:", say="doctest failed: {file}", before=(('File "', r"(?P<file>File .*)"),)),
    of("Failed ", r"\s*\d+/\d+ Test +#\d+: .*"),
    of("ERROR ", r"ERROR \S+(?:::| - ).*"),
    of(
        "Test Summary Report",
        say="tests failed: {items}",
        item=r"(?P<item>\S.* \(Wstat: .*)",
        skip=r"-+$|\s+.*",
        needs_items=True,
    ),
    of("tests FAILED:", r"The following tests FAILED:", "{line} {items}", item=r"\s*(?P<item>\d+ - .*)"),
    of("Result: FAIL", last=True),
    of("test result: FAILED", last=True),
    of(" failed", r"=+ .*\b\d+ failed\b.*", last=True),
    of("FAILED (", r"FAILED \((?:failures|errors)=.*", last=True),
    of("*** Failed test", last=True),
    *(of(f" {how} ", rf"\s*\d+/\d+ .* {how} +\d.*") for how in ("FAIL", "TIMEOUT", "ERROR", "INTERRUPT")),
    of("1) ", r"\s*1\) (?P<what>\S.*)", "{what} {items}", item=r"\s*(?P<item>\S.*)", items_max=1),
)

#: Patterns for the output of the failing phase, by the phase's name; any other phase is searched like %build.
OF_PHASE: dict[str, tuple[Pattern, ...]] = {
    "%prep": (*_PREP, *PYTHON),
    "%build": (*COMPILE, *_MISSING_TOOL, *PYTHON),
    "%install": (*_INSTALL, *COMPILE, *_MISSING_TOOL, *PYTHON),
    "%check": (*_CHECK, *COMPILE, *_MISSING_TOOL, *PYTHON),
}

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
    With `has_cause_above`, `{above}` is the message in the line just above, in parentheses.
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


def _of(needle: str, line: str | None = None, say: str = "{line}", **more: object) -> Pattern:
    expression = re.compile(line if line is not None else f".*{re.escape(needle)}")
    if before := more.get("before"):
        more["before"] = tuple((needle.encode(), re.compile(line)) for needle, line in before)  # type: ignore[attr-defined]
    for name in ("item", "skip"):
        if isinstance(text := more.get(name), str):
            more[name] = re.compile(text)
    return Pattern(needle=needle.encode(), line=expression, say=say, **more)  # type: ignore[arg-type]


#: rpmbuild's message about a spec with control characters near its start, and its cause.
NO_SPECFILE = " does not appear to be a specfile"
NO_TEXT = "It has bytes that no text has near its start, such as control characters"
_NO_NETWORK = "{line} (builds have no network: name it as a Source, or BuildRequire it)"
_SIGNALS = "Hangup|Killed|Terminated|Segmentation fault|Aborted|Bus error|Illegal instruction|Floating point exception"

#: Searched first, in the output of the failing phase: failures of the environment, which explain later messages.
SURROUNDINGS = (
    _of("No space left on device"),
    _of("Disk quota exceeded"),
    _of("File too large", r".*: File too large\b"),
    _of("Assertion `", r".*Assertion `.*' failed.*"),
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
    _of("\\r': command not found", say=_CRLF),
    _of("^M: bad interpreter", say=_CRLF),
    _of(
        "cannot execute: required file not found",
        r".*: (?P<file>\S+): cannot execute: required file not found",
        "{file}: cannot execute: the interpreter in its first line is not there, or the line ends with CR LF"
        " (is it in BuildRequires?)",
    ),
    _of(
        "command not found",
        r"(?:.*: )?(?P<tool>[^\s:]+): command not found",
        "{tool}: command not found (is it in BuildRequires?)",
    ),
    _of(": not found", r".*: \d+: (?P<tool>[^\s:]+): not found", "{tool}: command not found (is it in BuildRequires?)"),
    _of("bad interpreter"),
    _of(
        ": syntax error",
        r"\S*/rpm-tmp\.\w+: line \d+: (?P<what>syntax error.*)",
        "the shell cannot read the script: {what}: {items}",
        item=r"\S*/rpm-tmp\.\w+: line \d+: (?P<item>`.*')$",
    ),
    _of("/usr/bin/env: ", r"/usr/bin/env: (?P<tool>.+): No such file or directory", "{line} (is it in BuildRequires?)"),
)

_FILES = (
    _of(": No such file or directory", r"[\w./+-]+: .*: No such file or directory"),
    _of("Permission denied", say="{line} (only the build folder and the build root can be written)"),
    _of("Read-only file system", say="{line} (only the build folder and the build root can be written)"),
)

_PREP = (
    _of("Reversed (or previously applied)", say=_PATCH_SAYS, before=_PATCH),
    _of(
        ": Is a directory",
        r"error: File (?P<what>\S+): Is a directory",
        "{what} is a folder, not a file: a Source names no file, as a URL that ends with a slash does",
    ),
    _of("Bad source", r"error: Bad (?:source|file): (?P<what>.*)", "missing source: {what}"),
    _of("Bad file", r"error: Bad (?:source|file): (?P<what>.*)", "missing source: {what}"),
    _of("error: File ", r"error: File (?P<what>.*: No such file or directory)", "missing source: {what}"),
    _of(
        " FAILED -- saving rejects",
        r"\d+ out of \d+ hunks? FAILED -- saving rejects .*",
        _PATCH_SAYS,
        before=_PATCH,
    ),
    _of("Hunk #", r"Hunk #\d+ FAILED at .*", "patch {patch} does not apply: {file}: {line}", before=_PATCHED),
    _of("can't find file to patch", say=f"{_PATCH_SAYS} (see the number in %patch -p)", before=_PATCH),
    _of("malformed patch at line", say=_PATCH_SAYS, before=_PATCH),
    _of("Only garbage was found in the patch input", say=_PATCH_SAYS, before=_PATCH),
    _of("unexpectedly ends in middle of line", say=_PATCH_SAYS, before=_PATCH),
    _of("error: patch failed:", say=_PATCH_SAYS, before=_PATCH),
    _of("error: ", r"error: .*: (?:patch does not apply|does not exist in index)", _PATCH_SAYS, before=_PATCH),
    _of("corrupt patch at line", say=_PATCH_SAYS, before=_PATCH),
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
    _of("configure:", r"configure:\d+: error: (?!in ).*"),
    _of(
        "configure: error: in ",
        r"configure: error: in .*",
        "{items}",
        item=r"(?P<item>configure: error: .*)",
        items_max=1,
    ),
    _of("CMake Error", r"CMake Error.*", "{line} {items}", item=r" +(?P<item>\S.*)", skip=r"\s*$", items_max=2),
    _of("configure: error: "),
    _of("ERROR: ", r"(?:\S*meson\.build:\d+:\d+: )ERROR: .*"),
    _of("No package '", r"No package '.*' found", "pkg-config: {line} (is it in BuildRequires?)"),
    _of("required by 'virtual:world'", say="pkg-config: {line} (is it in BuildRequires?)"),
    _of("error: ", r"(?!error:|make|conftest|_configtest)[^\s:][^:]*:\d+:(?:\d+:)? (?:fatal )?error: .*"),
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
        "prerequisites not found",
        say="{line} {items} (is it in BuildRequires?)",
        item=r"\s+(?P<item>\S.*)",
        needs_items=True,
    ),
    _of("No matching distribution found for", say=_NO_NETWORK),
    _of("failed to load external entity", say=_NO_NETWORK),
    _of("ModuleNotFoundError: ", r"(?P<what>ModuleNotFoundError: .*)", "{what}", last=True),
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
    _of(
        "FAILED: ",
        r"FAILED: .*",
        "{line}: {items}",
        item=r"(?P<item>(?!ninja: ).*(?:error|fail|cannot|can't|not|:).*)",
        skip=r"(?!ninja: ).*",
        items_max=1,
        needs_items=False,
    ),
    _of("*** [", r"make(?:\[\d+\])?: \*\*\* \[.*"),
    _of("ninja: build stopped"),
)

_INSTALL = (
    _of("find-debuginfo", r".*find-debuginfo(?:\.sh)?: (?P<what>line .*)", "find-debuginfo: {what}"),
    _of("debugedit: "),
    _of("*** ERROR: No build ID note", say="debug information: {line}"),
    _of("*** ERROR: ambiguous python shebang"),
    _of("contains an invalid rpath", say="{line} (see check-rpaths)"),
    _of(
        "in installed files; aborting",
        say="{line}{above} (the build root's path got into a file)",
        has_cause_above=True,
    ),
    _of("*** ERROR: "),
)

_CHECK = (
    _of("--- FAIL: ", r"\s*--- FAIL: .*"),
    _of("FAILED ", r"FAILED \S+::.*"),
    _of("... FAILED", r"test .* \.\.\. FAILED"),
    _of("FAIL: ", r"(?:\d+/\d+ )?FAIL: .*"),
    _of("ERROR: ", r"ERROR: (?:\w+ \(.*\)|[\w./-]+(?: - .*)?$)"),
    _of("not ok ", r"\s*not ok \d+(?!.*# (?:TODO|SKIP)).*"),
    _of(
        "tests failed out of",
        say="{line}: {items}",
        last=True,
        item=r"\s*(?P<item>\d+ - .*)",
        skip=r"(?!Errors while running).*",
    ),
    _of("Failed test", r"#\s+Failed test .*"),
    _of("rspec ./", r"rspec \./.*"),
    _of("Failed example:", say="doctest failed: {file}", before=(('File "', r"(?P<file>File .*)"),)),
    _of("Failed ", r"\s*\d+/\d+ Test +#\d+: .*"),
    _of("ERROR ", r"ERROR \S+(?:::| - ).*"),
    _of(
        "Test Summary Report",
        say="tests failed: {items}",
        item=r"(?P<item>\S.* \(Wstat: .*)",
        skip=r"-+$|\s+.*",
        needs_items=True,
    ),
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
        "the root has what BuildConflicts rules out: {items}",
        item=r"\s+(?P<item>.+ conflicts with \S+$)",
        last=True,
        needs_items=True,
    ),
    _of(
        "Failed build dependencies",
        r"error: Failed build dependencies:",
        "unmet BuildRequires: {items}",
        item=r"\s+(?P<item>.+?(?= is needed by \S+$)|.+ conflicts with \S+$)",
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
    _of("Empty tag: ", r"error: line \d+: Empty tag: .*", "{line}{above}", has_cause_above=True),
    _of("error: ", r"error: (?:\S+\.spec: )?line \d+: .*"),
    _of("error: ", r"error: \S+\.spec:\d+: .*"),
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
    _of(NO_SPECFILE, say=f"{{line}} {NO_TEXT}"),
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

"""The error messages of rpm, rpmbuild and dnf themselves: data for reason.py, which owns the search."""

from workers.formats.rpm.reason_patterns import COMPILE, PYTHON, SURROUNDINGS, Pattern, of

#: rpmbuild's message about a spec with control characters near its start, and its cause.
NO_SPECFILE = " does not appear to be a specfile"
NO_TEXT = "It has bytes that no text has near its start, such as control characters"

_BUILDROOT = r"(?:/.*/BUILDROOT(?:/[^/]+-[^/]+-[^/]+\.[a-z0-9_]+)?(?=/))?"

_DEPENDENCIES = (
    of(
        "Failed build dependencies",
        r"error: Failed build dependencies:",
        "the root has what BuildConflicts rules out: {items}",
        item=r"\s+(?P<item>.+ conflicts with \S+$)",
        last=True,
        needs_items=True,
    ),
    of(
        "Failed build dependencies",
        r"error: Failed build dependencies:",
        "unmet BuildRequires: {items}",
        item=r"\s+(?P<item>.+?(?= is needed by \S+$)|.+ conflicts with \S+$)",
        last=True,
    ),
    of("nothing provides", r".*nothing provides (?:requested )?(?P<what>.+)", "nothing provides {what}"),
    of(
        "No matching package to install",
        r".*No matching package to install: '(?P<what>.+)'",
        "nothing provides {what}, {items}",
        item=r".*No matching package to install: '(?P<item>.+)'",
        skip=r"Package .* is already installed",
    ),
    of(
        "No match for argument",
        r".*No match for argument: (?P<what>.+)",
        "nothing provides {what}, {items}",
        item=r".*No match for argument: (?P<item>.+)",
    ),
    of("Unable to find a match", r".*Unable to find a match: (?P<what>.+)", "nothing provides {what}"),
    of("No Package found for", r".*No Package found for (?P<what>.+)", "nothing provides {what}"),
    of("none of the providers can be installed"),
    of("cannot install both"),
    of(" conflicts with ", r".*(?:package|file) .* conflicts with .*"),
    of("ailed to download metadata for repo"),
    of("No more mirrors to try"),
    of("Insufficient space in download directory"),
    of("Public key for ", r".*Public key for .* is not (?:installed|trusted).*"),
    of("GPG check FAILED"),
)
_SPEC = (
    of("No compatible architectures found"),
    of("error: Architecture is ", r"error: Architecture is (?:excluded|not included): .*"),
    of("Empty tag: ", r"error: line \d+: Empty tag: .*", "{line}{above}", has_cause_above=True),
    of(
        "failed to expand",
        r"error: (?P<what>.*Macro %\S+ failed to expand.*)",
        "error: {what}: {cause}",
        before=(("error: ", r"error: (?P<cause>.*)"),),
    ),
    of("error: ", r"error: (?:\S+\.spec: )?line \d+: .*"),
    of("error: ", r"error: \S+\.spec:\d+: .*"),
    of("not in descending chronological order"),
    of("bad date in %changelog", r"error: .*bad date in %changelog.*"),
    of(
        "error: ",
        r"error: (?:Unclosed %if|Macro %\S+|Too many levels of recursion|lua script failed|failed to expand).*",
    ),
    of("field must be present"),
    of("error: Package has no "),
    of(
        "error: No ",
        r"error: No \"?(?:Name|Version|Release|Summary|License|%description|source number|patch number)\b.*",
    ),
    of("error: Duplicate ", r"error: Duplicate .* entr.*"),
    of("error: Unable to open ", r"error: Unable to open \S+\.spec\b.*"),
    of(NO_SPECFILE, say=f"{{line}} {NO_TEXT}"),
    of("not an rpm package", say="{line} (the file is damaged or no RPM)"),
    of("error: unpacking of archive failed"),
    of(": BAD", r"error: \S+\.rpm: .*: BAD, .*", "{line} (the file is damaged)"),
    of("cannot be installed", r"error: .*\.src\.rpm cannot be installed", "{line} (the file is damaged or no RPM)"),
    of("Bad source", r"error: Bad (?:source|file): (?P<what>.*)", "missing source: {what}"),
    of("Bad file", r"error: Bad (?:source|file): (?P<what>.*)", "missing source: {what}"),
    of("error: File ", r"error: File (?P<what>(?!not found).*: No such file or directory)", "missing source: {what}"),
    of("query of specfile"),
)
_FILES_SECTION = (
    of(
        "Installed (but unpackaged)",
        r"error: Installed \(but unpackaged\) file\(s\) found:",
        "installed but unpackaged: {items}",
        item=r"\s+(?P<item>/.*)",
        last=True,
    ),
    of(
        "not found",
        rf"error: (?P<what>(?:File|Directory) not found(?: by glob)?: ){_BUILDROOT}(?P<path>.*)",
        "{what}{path}, {items}",
        item=rf"error: (?:File|Directory) not found(?: by glob)?: {_BUILDROOT}(?P<item>.*)",
        skip=r"(?!error: |RPM build ).*",
    ),
    of(
        "/debugsourcefiles.list",
        r"error: Empty %files file .*/debugsourcefiles\.list",
        "{line} (no source below the build folder was compiled with -g)",
    ),
    of("error: Empty %files file", say="{line} (a list of files that -f names)"),
    of("error: Could not open %files file"),
    of("error: File must begin with"),
    of("error: Not a directory: "),
    of("error: Explicit ", r"error: Explicit .*"),
    of("error: Arch dependent binaries in noarch package"),
    of(
        "error: ",
        r"error: (?:Two files on one line|Bad \S+ (?:mode|owner|group|spec)|Missing |Illegal char|Invalid ).*",
    ),
    of("invalid utf-8 encoding", r"error: .*"),
)

#: Patterns for the whole log, if no phase's script failed: (the phase's name, the patterns).
ANYWHERE: tuple[tuple[str, tuple[Pattern, ...]], ...] = (
    ("%files", _FILES_SECTION),
    ("dependencies", _DEPENDENCIES),
    ("spec", _SPEC),
    ("limits", SURROUNDINGS),
    ("timeout", (of("commandTimeoutExpired", r".*commandTimeoutExpired: (?P<what>.*)", "{what}"),)),
    (
        "",
        (
            *COMPILE[:3],
            *PYTHON,
            # Build roots have no database that rpmbuild could open, which it says each time and which does no harm.
            of("error: ", r"error: (?!Bad exit status|Unable to open sqlite|cannot open Packages).*", last=True),
            of("rror: ", r"(?:[\w./-]+: )?(?:E|Fatal e|fatal e)rror: .*|[\w./-]+: error: .*", last=True),
            of("ERROR: ", r"ERROR: .*", last=True),
            of("atal: ", r"(?:[\w./-]+: )?[Ff]atal: .*", last=True),
        ),
    ),
)

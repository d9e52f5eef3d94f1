"""How the reason is searched: which part of a log counts, and that what comes out is bounded, printable text."""

from pathlib import Path

from workers.formats.rpm.reason import EXCERPT_LINES, LINE_CHARS, find_reason


def script(phase: str, printed: str) -> str:
    """The output of rpmbuild around a script that fails."""
    return (
        f"Executing({phase}): /bin/sh -e /var/tmp/rpm-tmp.Ab12Cd\n+ umask 022\n+ cd /builddir/build/BUILD\n"
        f"{printed.rstrip()}\n"
        f"error: Bad exit status from /var/tmp/rpm-tmp.Ab12Cd ({phase})\n\n"
        f"RPM build errors:\n    Bad exit status from /var/tmp/rpm-tmp.Ab12Cd ({phase})\n"
    )


def test_an_empty_log_has_no_reason(tmp_path: Path) -> None:
    assert find_reason(_log(tmp_path, "")) is None
    assert find_reason(_log(tmp_path, "\n\n[farm] phase layer\n")) is None


def test_a_script_that_the_shell_cannot_read_is_told_with_its_line(tmp_path: Path) -> None:
    """The shell read the first command, and then stopped at the syntax: the command is not the cause."""
    at = "/var/tmp/rpm-tmp.Ab12Cd: line 28"
    said = f"{at}: syntax error near unexpected token `x86-64'\n{at}: `echo (x86-64)'\n"
    found = find_reason(_log(tmp_path, script("%build", said)))
    assert found is not None
    assert found.line == (
        "the shell cannot read the script: syntax error near unexpected token `x86-64': `echo (x86-64)'"
    )


def test_a_spec_with_control_characters_is_not_taken_for_something_else(tmp_path: Path) -> None:
    found = find_reason(_log(tmp_path, "error: File /builddir/in/a.spec does not appear to be a specfile.\n"))
    assert found is not None
    assert found.line.endswith("It has bytes that no text has near its start, such as control characters")


def test_errors_of_an_earlier_phase_are_not_the_reason(tmp_path: Path) -> None:
    """%prep printed a compiler's words and went on; %build failed on something else."""
    earlier = "Executing(%prep): /bin/sh -e x\nprobe.c:1:1: error: just a probe\n+ exit 0\n"
    found = find_reason(_log(tmp_path, earlier + script("%build", "make: *** [Makefile:3: all] Error 2")))
    assert found is not None
    assert found.line == "make: *** [Makefile:3: all] Error 2"


def test_a_nested_rpmbuild_that_failed_is_not_the_reason(tmp_path: Path) -> None:
    nested = script("%check", "FAIL: inner") + "Executing(%check): /bin/sh -e x\n+ exit 0\nExecuting(%clean): x\n"
    last = "error: Installed (but unpackaged) file(s) found:\n   /usr/bin/a\n"
    found = find_reason(_log(tmp_path, nested + last))
    assert found is not None
    assert found.line == "installed but unpackaged: /usr/bin/a"


def test_the_first_of_many_unpackaged_files_are_named(tmp_path: Path) -> None:
    names = "".join(f"   /usr/share/file{number}\n" for number in range(9))
    found = find_reason(_log(tmp_path, f"error: Installed (but unpackaged) file(s) found:\n{names}"))
    assert found is not None
    assert found.line.startswith("installed but unpackaged: /usr/share/file0, /usr/share/file1")
    assert found.line.endswith("/usr/share/file4 and 4 more")


def test_a_cut_log_says_so_instead_of_guessing(tmp_path: Path) -> None:
    marker = "\n[farm] the log reached its limit of 64 bytes; the rest is not kept\n"
    found = find_reason(_log(tmp_path, "a.c:1:1: error: not what failed in the end" + marker))
    assert found is not None
    assert found.phase == "log"
    assert found.line.startswith("the log reached its limit of 64 bytes")


def test_the_excerpt_has_the_lines_around_and_is_bounded(tmp_path: Path) -> None:
    noise = "".join(f"line {number} {'x' * 500}\n" for number in range(100))
    found = find_reason(_log(tmp_path, script("%build", f"{noise}a.c:1:1: error: here\n{noise}")))
    assert found is not None
    lines = found.excerpt.split("\n")
    assert len(lines) == EXCERPT_LINES
    assert "a.c:1:1: error: here" in lines
    assert lines[0].startswith("line ")
    assert all(len(line) <= LINE_CHARS for line in lines)


def test_hostile_bytes_come_out_as_printable_text(tmp_path: Path) -> None:
    """Escape codes, bidi overrides, NUL, carriage returns and bytes that are no UTF-8 are escaped."""
    said = b"main.c:1:1: error: caf\xe9 \x1b[2J\x1b]0;owned\x07 \xe2\x80\xaeevil\x00 \xed\xa0\x80 \x1b[31mred\x1b[0m"
    raw = script("%build", "HERE").encode().replace(b"HERE", said + b"\nshown\rhidden")
    path = tmp_path / "log"
    path.write_bytes(raw)
    found = find_reason(path)
    assert found is not None
    assert found.line == (r"main.c:1:1: error: caf\xe9 \x1b[2J\x1b]0;owned\x07 \u202eevil\x00 \xed\xa0\x80 red")
    assert found.line.isprintable()
    assert all(line.isprintable() for line in found.excerpt.split("\n"))


def test_a_very_long_line_is_clipped(tmp_path: Path) -> None:
    found = find_reason(_log(tmp_path, script("%build", "a.c:1:1: error: " + "x" * 100_000)))
    assert found is not None
    assert len(found.line) == LINE_CHARS
    assert found.line.endswith("…")


def test_only_the_head_and_the_tail_of_a_large_log_are_read(tmp_path: Path) -> None:
    log = _log(tmp_path, "first words\n" + "noise\n" * 200_000 + script("%build", "a.c:1:1: error: at the end"))
    found = find_reason(log, limit_bytes=10_000)
    assert found is not None
    assert found.line == "a.c:1:1: error: at the end"


def _log(folder: Path, text: str) -> Path:
    path = folder / "log"
    path.write_text(text, encoding="utf-8")
    return path

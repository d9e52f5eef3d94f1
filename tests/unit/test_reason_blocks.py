"""The reason where a tool only sums a failure up, or writes a message in several lines: one case for each kind."""

from pathlib import Path

import pytest

from tests.unit.test_reason import script
from workers.formats.rpm.reason import find_reason

KINDS = {
    "make sums up the words of a program that it ran": (
        "%build",
        "+ make\n./generate x > x.h\ngenerate: the schema has two roots\nmake: *** [Makefile:3: x.h] Error 3",
        "generate: the schema has two roots (make: *** [Makefile:3: x.h] Error 3)",
    ),
    "make sums up a program that is not there": (
        "%build",
        "+ make\nmake: mkfrob: No such file or directory\nmake: *** [Makefile:2: all] Error 127",
        "make: mkfrob: No such file or directory",
    ),
    "make sums up a message, and a probe's message is above": (
        "%build",
        (
            "+ make\nprobing: error: no frob, going on\nmake[1]: Entering directory '/x'\na.tab:7: no such column\n"
            "make[1]: *** [Makefile:9: t] Error 1\nmake: *** [Makefile:2: all] Error 2"
        ),
        "a.tab:7: no such column (make[1]: *** [Makefile:9: t] Error 1)",
    ),
    "ninja names the target, then the command, then the message": (
        "%build",
        "+ ninja\n[1/2] gen\nFAILED: g.h \ngen 'error: none'\nthe grammar has no start\nninja: build stopped: x",
        "the grammar has no start (FAILED: g.h)",
    ),
    "a title stands above the message": (
        "%build",
        "+ rake\nrake aborted!\nthe schema is gone\n\n(See full trace by running task with --trace)",
        "%build failed: the schema is gone from `rake`",
    ),
    "a message has a colon at its end": (
        "%build",
        '+ gem build\nERROR:  While executing gem ... (Gem::Invalid)\n    ["lib/none.rb"] are not files',
        'ERROR: While executing gem ... (Gem::Invalid) ["lib/none.rb"] are not files',
    ),
    "causes are below the message": (
        "%build",
        "+ cargo build\nerror: failed to parse manifest at `/b/Cargo.toml`\n\nCaused by:\n  edition `2099` is unknown",
        "error: failed to parse manifest at `/b/Cargo.toml`: edition `2099` is unknown",
    ),
    "pip indents the traceback of a program that it ran": (
        "%build",
        (
            "+ pip wheel .\n  error: subprocess-exited-with-error\n  ╰─> [4 lines of output]\n"
            '      Traceback (most recent call last):\n        File "be.py", line 1, in <module>\n          build()\n'
            "      frob.NoTable: the table is gone\n      [end of output]\nerror: metadata-generation-failed"
        ),
        "frob.NoTable: the table is gone",
    ),
    "cargo sums up a program that panicked": (
        "%build",
        (
            "+ cargo build\nerror: failed to run custom build command for `p v1.0.0`\n\nCaused by:\n  process didn't"
            " exit successfully: `build` (exit status: 101)\n  thread 'main' panicked at 'no frob', build.rs:1:5"
        ),
        "thread 'main' panicked at 'no frob', build.rs:1:5",
    ),
    "npm writes its code and its options around the message": (
        "%build",
        "+ npm ci\nnpm error code EUSAGE\nnpm error\nnpm error It needs a lock file.\nnpm error aliases: ci, install",
        "npm error It needs a lock file.",
    ),
    "a place and a message, and a count after it": (
        "%build",
        "+ msgfmt de.po\nde.po:3: end-of-line within string\nmsgfmt: found 2 fatal errors",
        "de.po:3: end-of-line within string",
    ),
    "Perl ends with words about its end": (
        "%build",
        (
            '+ perl gen.pl\nGlobal symbol "$a" requires explicit package name at gen.pl line 2.\n'
            "Execution of gen.pl aborted due to compilation errors."
        ),
        'Global symbol "$a" requires explicit package name at gen.pl line 2.',
    ),
    "warnings are errors": (
        "%build",
        "+ sphinx-build -W\nx.rst:4: WARNING: unknown document: gone\nbuild finished with problems, 1 warning.",
        "x.rst:4: WARNING: unknown document: gone",
    ),
    "meson ends a test that takes too long": (
        "%check",
        "+ meson test\n1/2 quick OK      0.10s\n2/2 slow  TIMEOUT 1.01s   killed by signal 15 SIGTERM\nTimeout: 1",
        "2/2 slow TIMEOUT 1.01s killed by signal 15 SIGTERM",
    ),
    "a list of failures has numbers": (
        "%check",
        "+ phpunit\nok so far\nThere was 1 failure:\n\n1) SumTest::testAdds\nFailed asserting that 2 is 3.",
        "SumTest::testAdds Failed asserting that 2 is 3.",
    ),
    "a decompressor's words count more than those of tar": (
        "%prep",
        "+ tar xzf a\ngzip: a: unexpected end of file\ntar: This does not look like a tar archive\ntar: Exiting",
        "gzip: a: unexpected end of file",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_reason_is_the_message_itself(tmp_path: Path, kind: str) -> None:
    phase, printed, words = KINDS[kind]
    log = tmp_path / "log"
    log.write_text(script(phase, printed), encoding="utf-8")
    found = find_reason(log)
    assert found is not None
    assert words in " ".join(found.line.split())


def test_every_file_that_is_not_found_is_named(tmp_path: Path) -> None:
    """rpmbuild goes on after a %license that is not there, and runs the script of the next kind."""
    root = "/builddir/build/BUILDROOT/demo-1.0-1.x86_64"
    log = tmp_path / "log"
    log.write_text(
        f"error: File not found: {root}/usr/bin/one\nExecuting(%license): /bin/sh -e x\n+ exit 0\n"
        f"error: Directory not found: {root}/usr/share/two\n\nRPM build errors:\n    File not found: {root}/x\n"
    )
    found = find_reason(log)
    assert found is not None
    assert found.line == "File not found: /usr/bin/one, /usr/share/two"

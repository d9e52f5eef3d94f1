"""Real error messages of tools, and the reason that a person would name: one case for each."""

from pathlib import Path

import pytest

from workers.formats.rpm.reason import find_reason


def script(phase: str, printed: str) -> str:
    """The output of rpmbuild around a script that fails."""
    return (
        f"Executing({phase}): /bin/sh -e /var/tmp/rpm-tmp.Ab12Cd\n+ umask 022\n+ cd /builddir/build/BUILD\n"
        f"{printed.rstrip()}\n"
        f"error: Bad exit status from /var/tmp/rpm-tmp.Ab12Cd ({phase})\n\n"
        f"RPM build errors:\n    Bad exit status from /var/tmp/rpm-tmp.Ab12Cd ({phase})\n"
    )


IN_SCRIPTS = [
    # %prep
    (
        "%prep",
        (
            "Patch #0 (fix.patch):\n+ /usr/bin/patch --no-backup-if-mismatch -f -p1 --fuzz=0\npatching file hello.c\n"
            "Hunk #1 FAILED at 3.\n1 out of 1 hunk FAILED -- saving rejects to file hello.c.rej"
        ),
        "patch fix.patch does not apply: 1 out of 1 hunk FAILED -- saving rejects to file hello.c.rej",
    ),
    (
        "%prep",
        "can't find file to patch at input line 5\nPerhaps you used the wrong -p or --strip option?",
        "patch does not apply: can't find file to patch at input line 5 (see the number in %patch -p)",
    ),
    (
        "%prep",
        "patching file a.c\nReversed (or previously applied) patch detected!  Skipping patch.\n1 out of 1 hunk ignored",
        "patch does not apply: a.c: Reversed (or previously applied) patch detected!  Skipping patch.",
    ),
    ("%prep", "gzip: stdin: not in gzip format\ntar: Child returned status 1", "gzip: stdin: not in gzip format"),
    ("%prep", "tar: Unexpected EOF in archive\ntar: Error is not recoverable", "tar: Unexpected EOF in archive"),
    (
        "%prep",
        "+ cd hello-1.0\n/var/tmp/rpm-tmp.Ab12Cd: line 41: cd: hello-1.0: No such file or directory",
        "the archive has no folder hello-1.0 (see %setup -n)",
    ),
    (
        "%prep",
        "error: File /builddir/build/SOURCES/hello-1.0.tar.gz: No such file or directory",
        "missing source: /builddir/build/SOURCES/hello-1.0.tar.gz: No such file or directory",
    ),
    # %build
    (
        "%build",
        (
            "cc -c a.c\na.c:7:3: warning: unused variable 'x'\na.c:9:12: error: 'y' undeclared (first use)\n"
            "b.c:1:1: error: another one\nmake: *** [Makefile:2: a.o] Error 1"
        ),
        "a.c:9:12: error: 'y' undeclared (first use)",
    ),
    (
        "%build",
        "main.c:1:10: fatal error: foo.h: No such file or directory\ncompilation terminated.",
        "main.c:1:10: fatal error: foo.h: No such file or directory",
    ),
    (
        "%build",
        (
            "/usr/bin/ld: main.o: in function `main':\nmain.c:(.text+0x9): undefined reference to `greet'\n"
            "collect2: error: ld returned 1 exit status\nmake: *** [Makefile:3: prog] Error 1"
        ),
        "main.c:(.text+0x9): undefined reference to `greet'",
    ),
    (
        "%build",
        "/usr/bin/ld: cannot find -lfoo: No such file or directory\ncollect2: error: ld returned 1 exit status",
        "/usr/bin/ld: cannot find -lfoo: No such file or directory (is its -devel package in BuildRequires?)",
    ),
    (
        "%build",
        "make[1]: *** No rule to make target 'x.c', needed by 'x.o'.  Stop.",
        "make[1]: *** No rule to make target 'x.c', needed by 'x.o'. Stop.",
    ),
    ("%build", "make[2]: *** [Makefile:12: docs] Error 127", "make[2]: *** [Makefile:12: docs] Error 127"),
    (
        "%build",
        (
            "CMake Error at CMakeLists.txt:3 (find_package):\n  Could NOT find ZLIB (missing: ZLIB_LIBRARY)\n"
            "Call Stack (most recent call first):"
        ),
        "CMake Error at CMakeLists.txt:3 (find_package): Could NOT find ZLIB (missing: ZLIB_LIBRARY)",
    ),
    (
        "%build",
        'meson.build:5:0: ERROR: Dependency "gtk4" not found, tried pkgconfig\n',
        'meson.build:5:0: ERROR: Dependency "gtk4" not found, tried pkgconfig',
    ),
    (
        "%build",
        "checking for error: handling... no\nconfigure: error: libfoo is required",
        "configure: error: libfoo is required",
    ),
    (
        "%build",
        "[1/9] cc a.c\nFAILED: src/a.o \ncc -c a.c\nninja: build stopped: subcommand failed.",
        "FAILED: src/a.o",
    ),
    (
        "%build",
        (
            'Traceback (most recent call last):\n  File "setup.py", line 3, in <module>\n    import numpy\n'
            "    ^^^^^^^^^^^^\nModuleNotFoundError: No module named 'numpy'"
        ),
        "ModuleNotFoundError: No module named 'numpy'",
    ),
    (
        "%build",
        "/var/tmp/rpm-tmp.Ab12Cd: line 44: cmake: command not found",
        "cmake: command not found (is it in BuildRequires?)",
    ),
    (
        "%build",
        "/var/tmp/rpm-tmp.Ab12Cd: 44: cmake: not found",
        "cmake: command not found (is it in BuildRequires?)",
    ),
    (
        "%build",
        "/usr/bin/env: 'node': No such file or directory",
        "/usr/bin/env: 'node': No such file or directory (is it in BuildRequires?)",
    ),
    (
        "%build",
        "./configure: /usr/bin/ksh: bad interpreter: No such file or directory",
        "./configure: /usr/bin/ksh: bad interpreter: No such file or directory",
    ),
    (
        "%build",
        "error[E0425]: cannot find value `x` in this scope",
        "error[E0425]: cannot find value `x` in this scope",
    ),
    ("%build", "# demo\n./main.go:5:2: undefined: fmt.Printn", "./main.go:5:2: undefined: fmt.Printn"),
    # %install
    (
        "%install",
        "install: cannot stat 'never-made.txt': No such file or directory",
        "install: cannot stat 'never-made.txt': No such file or directory",
    ),
    (
        "%install",
        "mkdir: cannot create directory '/usr/share/x': Permission denied",
        (
            "mkdir: cannot create directory '/usr/share/x': Permission denied"
            " (only the build folder and the build root can be written)"
        ),
    ),
    (
        "%install",
        "*** ERROR: ambiguous python shebang in /usr/bin/x: #!/usr/bin/python. Change it to python3 explicitly.",
        "*** ERROR: ambiguous python shebang in /usr/bin/x: #!/usr/bin/python. Change it to python3 explicitly.",
    ),
    (
        "%install",
        "/usr/bin/find-debuginfo: line 320: eu-strip: command not found",
        "find-debuginfo: line 320: eu-strip: command not found",
    ),
    (
        "%install",
        "*** ERROR: No build ID note found in /builddir/build/BUILDROOT/x/usr/bin/x",
        "debug information: *** ERROR: No build ID note found in /builddir/build/BUILDROOT/x/usr/bin/x",
    ),
    # %check
    ("%check", "PASS: one\nXFAIL: known\nFAIL: two\n# FAIL:  1", "FAIL: two"),
    (
        "%check",
        "FAILED tests/test_a.py::test_b - AssertionError: assert 1 == 2\n===== 1 failed, 9 passed in 0.12s =====",
        "FAILED tests/test_a.py::test_b - AssertionError: assert 1 == 2",
    ),
    ("%check", "ok 1 - one\nnot ok 2 - two # TODO later\nnot ok 3 - three", "not ok 3 - three"),
    ("%check", "--- FAIL: TestAdd (0.00s)\nFAIL\nexit status 1", "--- FAIL: TestAdd (0.00s)"),
    (
        "%check",
        "test parser::empty ... FAILED\ntest result: FAILED. 3 passed; 1 failed",
        "test parser::empty ... FAILED",
    ),
    (
        "%check",
        "80% tests passed, 2 tests failed out of 10\n\nThe following tests FAILED:\n\t  3 - parse (Failed)",
        "80% tests passed, 2 tests failed out of 10: 3 - parse (Failed)",
    ),
    (
        "%check",
        "FAIL: test_answer (tests.Answer)\nTraceback (most recent call last):\nAssertionError",
        "FAIL: test_answer (tests.Answer)",
    ),
    # failures of a build's environment
    (
        "%build",
        "dd: error writing 'fill': No space left on device\na.c:1:1: error: cannot write",
        "dd: error writing 'fill': No space left on device",
    ),
    (
        "%build",
        "c++: fatal error: Killed signal terminated program cc1plus\ncompilation terminated.",
        "c++: fatal error: Killed signal terminated program cc1plus (most often the memory limit)",
    ),
    ("%build", "cc1: error: Cannot allocate memory", "cc1: error: Cannot allocate memory"),
    (
        "%build",
        "/var/tmp/rpm-tmp.Ab12Cd: fork: retry: Resource temporarily unavailable",
        "/var/tmp/rpm-tmp.Ab12Cd: fork: retry: Resource temporarily unavailable (the process limit)",
    ),
    (
        "%check",
        "/var/tmp/rpm-tmp.tsNw8d: line 51: 3458731 Hangup                  $PWD/run-tests.php -l tests.lst",
        "Hangup: $PWD/run-tests.php -l tests.lst",
    ),
    (
        "%build",
        "/var/tmp/rpm-tmp.tsNw8d: line 5: 12 Segmentation fault      (core dumped) ./generate",
        "Segmentation fault: (core dumped) ./generate",
    ),
    (
        "%build",
        "curl: (6) Could not resolve host: github.com\nmake: *** [Makefile:2: download] Error 6",
        (
            "curl: (6) Could not resolve host: github.com"
            " (builds have no network: name it as a Source, or BuildRequire it)"
        ),
    ),
    # no words that are known
    ("%build", "+ ./generate\nit went wrong\n+ exit 1", "%build failed: it went wrong from `./generate`"),
    ("%check", "+ false", "%check failed: `false`"),
]


@pytest.mark.parametrize(("phase", "printed", "line"), IN_SCRIPTS, ids=[case[2][:50] for case in IN_SCRIPTS])
def test_a_failed_script_has_its_own_words_as_reason(tmp_path: Path, phase: str, printed: str, line: str) -> None:
    found = find_reason(_log(tmp_path, script("%prep", "+ true").split("error:")[0] + script(phase, printed)))
    assert found is not None
    assert found.phase == phase
    assert " ".join(found.line.split()) == " ".join(line.split())
    assert found.excerpt.strip()


ANYWHERE = [
    (
        "dependencies",
        (
            "error: Failed build dependencies:\n\tfoo-devel >= 2 is needed by hello-1.0-1.x86_64\n"
            "\tbar is needed by hello-1.0-1.x86_64\n"
        ),
        "unmet BuildRequires: foo-devel >= 2, bar",
    ),
    (
        "dependencies",
        "Error: \n Problem: nothing provides requested no-such-devel >= 4\n",
        "nothing provides no-such-devel >= 4",
    ),
    (
        "dependencies",
        " Problem: conflicting requests\n  - nothing provides libx.so.1 needed by foo-1-1.x86_64\n",
        "nothing provides libx.so.1 needed by foo-1-1.x86_64",
    ),
    ("dependencies", "No matching package to install: 'nope'\n", "nothing provides nope"),
    (
        "dependencies",
        (
            "Package gcc-4:12.2.0-3.x86_64 is already installed.\nNo matching package to install: 'nope-devel >= 4.2'\n"
            "Package make-1-1.x86_64 is already installed.\nNo matching package to install: 'other'\n"
            "Not all dependencies satisfied\nError: Some packages could not be found.\n"
        ),
        "nothing provides nope-devel >= 4.2, other",
    ),
    (
        "dependencies",
        (
            "No match for argument: nope-devel >= 4.2\nNo match for argument: other\n"
            "Error: Unable to find a match: nope-devel >= 4.2 other\n"
        ),
        "nothing provides nope-devel >= 4.2, other",
    ),
    (
        "spec",
        (
            "error: /builddir/cut.src.rpm: signature hdr blob(4388): BAD, read returned 0\n"
            "error: /builddir/cut.src.rpm cannot be installed\n"
        ),
        "error: /builddir/cut.src.rpm: signature hdr blob(4388): BAD, read returned 0 (the file is damaged)",
    ),
    ("dependencies", "Error: Unable to find a match: nope\n", "nothing provides nope"),
    (
        "dependencies",
        "DEBUG util.py:484:  Error: No Package found for ea-openssl-devel >= 1:1.0.2n-3\n",
        "nothing provides ea-openssl-devel >= 1:1.0.2n-3",
    ),
    (
        "dependencies",
        "failure: repodata/repomd.xml from updates: [Errno 256] No more mirrors to try.\n",
        "failure: repodata/repomd.xml from updates: [Errno 256] No more mirrors to try.",
    ),
    (
        "dependencies",
        "DEBUG util.py:485:  Error: Insufficient space in download directory /var/lib/mock/\n",
        "Error: Insufficient space in download directory /var/lib/mock/",
    ),
    ("spec", "error: line 7: Unknown tag: Nonsense: x\n", "error: line 7: Unknown tag: Nonsense: x"),
    ("spec", "error: x.spec: line 7: Unclosed %if\n", "error: x.spec: line 7: Unclosed %if"),
    (
        "spec",
        "error: License field must be present in package: (main package)\n",
        "error: License field must be present in package: (main package)",
    ),
    (
        "spec",
        "BUILDSTDERR: error: %changelog not in descending chronological order\n",
        "error: %changelog not in descending chronological order",
    ),
    ("spec", "error: bad date in %changelog: Mon Foo 12 2020\n", "error: bad date in %changelog: Mon Foo 12 2020"),
    ("spec", "error: Architecture is not included: x86_64\n", "error: Architecture is not included: x86_64"),
    (
        "spec",
        "BUILDSTDERR: error: No compatible architectures found for build\n",
        "error: No compatible architectures found for build",
    ),
    (
        "spec",
        "error: Bad source: /builddir/SOURCES/a.tar.gz: No such file or directory\n",
        "missing source: /builddir/SOURCES/a.tar.gz: No such file or directory",
    ),
    (
        "spec",
        "error: bad.src.rpm: not an rpm package (or package manifest)\n",
        "error: bad.src.rpm: not an rpm package (or package manifest) (the file is damaged or no RPM)",
    ),
    (
        "%files",
        (
            "error: Installed (but unpackaged) file(s) found:\n   /usr/bin/a\n   /usr/bin/b\n\nRPM build errors:\n"
            "    Installed (but unpackaged) file(s) found:\n   /usr/bin/a\n   /usr/bin/b\n"
        ),
        "installed but unpackaged: /usr/bin/a, /usr/bin/b",
    ),
    (
        "%files",
        "error: File not found: /builddir/build/BUILDROOT/hello-1.0-1.x86_64/usr/bin/absent\n",
        "File not found: /usr/bin/absent",
    ),
    (
        "%files",
        "error: Directory not found: /builddir/build/BUILD/hello-1.0-build/BUILDROOT/usr/share/x\n",
        "Directory not found: /usr/share/x",
    ),
    (
        "%files",
        "error: Arch dependent binaries in noarch package\n",
        "error: Arch dependent binaries in noarch package",
    ),
    (
        "%files",
        "Processing files: x-debugsource-1-1.x86_64\nerror: Empty %files file /b/debugsourcefiles.list\n",
        "error: Empty %files file /b/debugsourcefiles.list (no source below the build folder was compiled with -g)",
    ),
    (
        "%files",
        "Processing files: x-1-1.x86_64\nerror: Empty %files file /b/x.lang\n",
        "error: Empty %files file /b/x.lang (a list of files that -f names)",
    ),
    (
        "timeout",
        "commandTimeoutExpired: Timeout(112) expired for command:\n # rpmbuild\n",
        "Timeout(112) expired for command:",
    ),
    (
        "",
        (
            "error: Unable to open sqlite database /var/lib/rpm/rpmdb.sqlite: unable to open database file\n"
            "error: cannot open Packages database in /var/lib/rpm\nerror: line too odd to read\n"
            "error: cannot open Packages database in /var/lib/rpm\n"
        ),
        "error: line too odd to read",
    ),
    ("", "strange tool: it broke\n", "the log ends with: strange tool: it broke"),
    ("", "fatal: something else\n[farm] exit 1 after 2 s\n", "fatal: something else"),
]


@pytest.mark.parametrize(("phase", "printed", "line"), ANYWHERE, ids=[case[2][:50] for case in ANYWHERE])
def test_a_failure_outside_of_scripts_is_found_in_the_whole_log(
    tmp_path: Path, phase: str, printed: str, line: str
) -> None:
    found = find_reason(_log(tmp_path, "[farm] phase layer\nsome words\n" + printed))
    assert found is not None
    assert (found.phase, found.line) == (phase, line)


def _log(folder: Path, text: str) -> Path:
    path = folder / "log"
    path.write_text(text, encoding="utf-8")
    return path

"""Records the logs of tests/data/reasons: runs each case with the real rpmbuild and the real tools of this host.

    python -m tests.tools.record_reasons [NAME …]

Each case is built in a sandbox without network, as an ordinary user, from a spec that is made of the case's table in
tests/data/reasons/cases. The README there says which tools the host needs.
"""

import io
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "data/reasons"
LOGS = DATA / "logs"
#: The cases on which the reader is tuned, and those on which it is not.
FOLDERS = TUNED, HELD_OUT = "cases", "held-out"
_PREAMBLE = "Name: demo\nVersion: 1.0\nRelease: 1\nSummary: A demo\nLicense: MIT"
_KEPT_HEAD_BYTES, _KEPT_TAIL_BYTES = 3000, 20_000
_TIMEOUT_S = 120
_BASE = _PREAMBLE.replace("demo", "rpm-base") + "\nBuildArch: noarch\n%description\nx\n%files\n"


def cases(*folders: str) -> dict[str, dict[str, Any]]:
    """The cases of these FOLDERS, or of all, by name. `says` is a regular expression that the right reason matches."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(path for folder in folders or FOLDERS for path in (DATA / folder).glob("*.toml")):
        for name, case in tomllib.loads(path.read_text(encoding="utf-8")).items():
            assert name not in found, f"two cases are called {name}"
            found[name] = case
    return found


def log_of(name: str) -> Path:
    return LOGS / f"{name}.log"


def main(names: list[str]) -> None:
    LOGS.mkdir(exist_ok=True)
    chosen = {name: case for name, case in cases().items() if not names or name in names}
    with tempfile.TemporaryDirectory(prefix="record-reasons-") as folder:
        Path(folder).chmod(0o755)
        database = _database(Path(folder))
        for name, case in chosen.items():
            work = Path(folder) / name
            code, said = _record(work, case, database)
            log_of(name).write_bytes(_framed(said, code))
            print(f"{name}: {code}{_doubt(case, said, code)}", flush=True)


def _doubt(case: dict[str, Any], said: bytes, code: int) -> str:
    """A mark for a case that did not fail, or whose tool wrote no words that `says` expects."""
    if code == 0:
        return "  SUCCEEDED"
    words = " ".join(said.decode(errors="replace").split())
    return "" if re.search(case["says"], words, re.IGNORECASE) else "  WITHOUT THE EXPECTED WORDS"


def _record(work: Path, case: dict[str, Any], database: Path) -> tuple[int, bytes]:
    sources, tree = work / "in", work / "in/tree"
    tree.mkdir(parents=True)
    for name, text in case.get("tree", {}).items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(text.encode())
    for name, text in case.get("sources", {}).items():
        (sources / name).write_bytes(_source(text))
    (sources / "demo.spec").write_bytes(_spec(case).encode())
    argv = ["rpmbuild", case.get("verb", "-bb"), *([] if case.get("strict") else ["--nodeps"])]
    for define in (
        "_topdir /builddir/build",
        "_sourcedir /builddir/in",
        f"_buildshell {case.get('shell', '/bin/bash')}",
        f"_dbpath {'/rpmdb' if case.get('strict') else '/builddir/nodb'}",
        "_unpackaged_files_terminate_build 1",
        *([] if case.get("debug") else ["debug_package %{nil}"]),
        *case.get("defines", ()),
    ):
        argv += ["--define", define]
    return _sandboxed([*argv, "/builddir/in/demo.spec"], work, database)


def _spec(case: dict[str, Any]) -> str:
    if "spec" in case:
        head = f"{_PREAMBLE}\n" if case.get("before") else ""
        good = f"{_PREAMBLE}\n"
        return head + str(case["spec"]).replace("%S\n", good).replace("%D", "%description\nx\n%files\n")
    is_setup = "prep" in case and re.search(r"%(setup|autosetup)", case["prep"])
    setup = "" if is_setup else "%setup -q -c -T\ncp -a %{_sourcedir}/tree/. .\n"
    parts = [_PREAMBLE, case.get("head", ""), "%description\nx", f"%prep\n{setup}{case.get('prep', '')}"]
    if "generate" in case:
        parts.append(f"%generate_buildrequires\n{case['generate']}")
    parts.append(case["raw"] if "raw" in case else f"%build\n{case.get('build', '')}")
    parts += [f"%{phase}\n{case[phase]}" for phase in ("install", "check") if phase in case]
    parts.append(f"%files {case.get('files_of', '')}\n{case.get('files', '')}\n")
    return "\n".join(part for part in parts if part)


def _source(text: str) -> bytes:
    """`@tar PATH=TEXT` is an archive with one file, `@targz-cut` the first half of a compressed one."""
    kind, _, rest = text.partition(" ")
    if not kind.startswith("@"):
        return text.encode()
    name, _, content = rest.partition("=")
    data = content.replace("\\n", "\n").encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if "gz" in kind else "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    made = buffer.getvalue()
    return made[: len(made) // 2] if "cut" in kind else made


def _database(folder: Path) -> Path:
    """An RPM database with one package, rpm-base, for builds whose BuildRequires are looked at."""
    work, database = folder / "base", folder / "rpmdb"
    (work / "in").mkdir(parents=True)
    database.mkdir()
    (work / "in/base.spec").write_text(_BASE)
    options = ["--define", "_topdir /builddir", "--define", "_dbpath /builddir/nodb", "--nodeps"]
    code, said = _sandboxed(["rpmbuild", "-bb", *options, "/builddir/in/base.spec"], work, database)
    assert code == 0, said
    package = next((work / "RPMS").rglob("*.rpm"))
    subprocess.run(
        ["rpm", "--dbpath", str(database), "--nosignature", "-i", "--justdb", "--nodeps", str(package)], check=True
    )
    return database


def _sandboxed(argv: list[str], work: Path, database: Path) -> tuple[int, bytes]:
    subprocess.run(["chown", "-R", "1000:1000", str(work)], check=True)
    sandbox = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "bwrap", "--tmpfs", "/"]
    for path in ("usr", "etc"):
        sandbox += ["--ro-bind", f"/{path}", f"/{path}"]
    for path in ("bin", "sbin", "lib", "lib64"):
        sandbox += ["--symlink", f"usr/{path}", f"/{path}"]
    sandbox += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp"]
    sandbox += ["--size", str(2**20), "--tmpfs", "/small", "--dir", "/opt", "--chmod", "0555", "/opt"]
    sandbox += ["--bind", str(work), "/builddir", "--ro-bind", str(database), "/rpmdb", "--remount-ro", "/"]
    sandbox += ["--unshare-all", "--hostname", "builder", "--chdir", "/builddir", "--clearenv", "--die-with-parent"]
    env = {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "HOME": "/builddir", "LANG": "C.UTF-8"}
    sandbox += [word for key, value in env.items() for word in ("--setenv", key, value)]
    done = subprocess.run(
        [*sandbox, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=_TIMEOUT_S,
    )
    return done.returncode, done.stdout


def _framed(said: bytes, code: int) -> bytes:
    """The log with the farm's own lines around it; of a long one the head and the tail."""
    if len(said) > _KEPT_HEAD_BYTES + _KEPT_TAIL_BYTES:
        said = said[:_KEPT_HEAD_BYTES] + said[-_KEPT_TAIL_BYTES:]
    return b"[farm] phase rpmbuild\n" + said + b"\n[farm] exited with code %d after 1.0 s\n" % code


if __name__ == "__main__":
    main(sys.argv[1:])

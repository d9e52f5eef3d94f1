"""A real nginx for a test, with the configuration that deploy/nginx has. Debian's package is unpacked, not installed,
since an installed one would start a server on port 80."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "deploy/nginx/farm.conf"
_TIMEOUT_S = 120


def nginx_program(into: Path) -> Path:
    """The program. Skips where there is none; fails instead where CI is set."""
    if found := shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        return Path(found)
    try:
        try:
            _run(["apt-get", "--quiet=2", "download", "nginx"], into)
        except subprocess.SubprocessError:  # without the lists of packages
            _run(["apt-get", "--quiet=2", "update"], into)
            _run(["apt-get", "--quiet=2", "download", "nginx"], into)
        _run(["dpkg", "-x", str(next(into.glob("nginx_*.deb"))), "x"], into)
    except (OSError, StopIteration, subprocess.SubprocessError) as error:
        if os.environ.get("CI"):
            pytest.fail(f"nginx cannot be had: {error}")
        pytest.skip(f"nginx cannot be had: {error}")
    return into / "x/usr/sbin/nginx"


def _run(words: list[str], folder: Path) -> None:
    subprocess.run(words, cwd=folder, capture_output=True, timeout=_TIMEOUT_S, check=True)


def example(replaced: Mapping[str, str]) -> str:
    """The example with these texts replaced, each of which it has."""
    text = EXAMPLE.read_text()
    for old, new in replaced.items():
        assert old in text, f"{EXAMPLE.name} has no {old!r} any more"
        text = text.replace(old, new)
    return text


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for the name, signed by itself, and its key."""
    certificate, key = folder / "farm.pem", folder / "farm.key"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    _run([*words, "-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(certificate)], folder)
    return certificate, key


@contextmanager
def running_nginx(program: Path, servers: str, folder: Path) -> Iterator[None]:
    """With these upstreams and servers. The block begins when it listens."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process on; worker_processes 1; user root; pid {folder}/pid; error_log {folder}/errors;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}{servers}\n}}\n"
    )
    process = subprocess.Popen([program, "-p", folder, "-e", folder / "errors", "-c", config], cwd=folder)
    try:
        deadline = time.monotonic() + _TIMEOUT_S
        while not (folder / "pid").exists():
            assert process.poll() is None, (folder / "errors").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(_TIMEOUT_S)

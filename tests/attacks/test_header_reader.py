"""What a header that takes over its reader finds there: the reader is uid 0 of the host, without capabilities."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from workers.steps.publishable import _sandboxed

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="without root there is no sandbox"),
]

_PROBE = """
import os, socket, sys
def tries(what, do):
    try:
        do()
    except OSError:
        return
    print(what)
secret, unix, package = sys.argv[1:]
tries("package", lambda: open(package).read())
tries("secret", lambda: open(secret).read())
tries("shadow", lambda: open("/etc/shadow").read())
tries("socket", lambda: socket.socket(socket.AF_UNIX).connect(unix))
tries("core_pattern", lambda: os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)))
tries("replace", lambda: os.close(os.open(package, os.O_WRONLY)))
"""


def test_it_sees_the_packages_and_nothing_else_of_the_host(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir(mode=0o700)
    (package := work / "hello.rpm").write_bytes(b"x")
    (secret := tmp_path / "secret").write_bytes(b"x")
    secret.chmod(0o600)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        argv = [*_sandboxed(work), sys.executable, "-I", "-c", _PROBE, secret, tmp_path / "s", package]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["package"]

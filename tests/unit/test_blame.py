"""Blame of package or farm in cases that the recorded logs lack: messages of dnf 5, and forgery."""

from pathlib import Path

import pytest

from farm.model.arch import Arch
from workers.core.context import Ended
from workers.core.run import TAIL_BYTES
from workers.formats.rpm.blame import Blame, End, HostState, host_state, of_dnf, of_rpmbuild
from workers.isolation import emulator

_WELL = HostState()
_BEGUN = b"Running transaction\n  Preparing        :    1/1 \n  Running scriptlet: evil-1-1.noarch   1/2 \n"


def _dnf(said: bytes, host: HostState = _WELL, *, has_begun: bool = False) -> tuple[str, Blame]:
    verdict = of_dnf(End(code=1, said=said, host=host, has_begun=has_begun))
    assert verdict is not None
    return verdict.case.name, verdict.case.blame


@pytest.mark.parametrize(
    ("said", "row"),
    [
        (b">>> Status code: 404 for https://m.invalid/repodata/repomd.xml (IP: 192.0.2.1)\n", "network"),
        (b">>> Curl error (6): Could not resolve hostname for https://m.invalid/\n", "network"),
        (b">>> Librepo error: Cannot download repomd.xml\n", "network"),
        (b"Failed to resolve the transaction:\nNo match for argument: nope\n", "nothing-provides"),
        (
            b'error: line 6: Version required: BuildRequires: a >=\nFailed to parse spec file "/work/wanted.spec".\n',
            "bad-requirement",
        ),
        (b"Failed to resolve the transaction:\nProblem: conflicting requests\n", "conflict"),
        (b"Problem: conflicting requests\n  - nothing provides libx needed by y-1.noarch from z\n", "nothing-provides"),
        (b"\xff\x1b[31m", "root"),
    ],
)
def test_messages_of_dnf_5_and_of_no_tool(said: bytes, row: str) -> None:
    assert _dnf(said)[0] == row


@pytest.mark.parametrize(
    "words",
    [b"Curl error (7): no", b"Error: Failed to download metadata for repo 'x'", b"  installing package x needs 3"],
)
def test_output_of_a_scriptlet_is_neither_the_networks_nor_the_disks_trouble(words: bytes) -> None:
    said = _BEGUN + words + b"MB more space needed\n"
    assert _dnf(said, has_begun=True) == ("installing", Blame.PACKAGE)
    assert _dnf(words, has_begun=True) == ("installing", Blame.PACKAGE), "whether or not the log has dnf's own words"
    said += b"\nError in PREIN scriptlet in rpm package evil\n"
    assert _dnf(said, has_begun=True) == ("scriptlet", Blame.PACKAGE)


def test_before_dnf_installs_no_words_make_it_seem_so() -> None:
    assert _dnf(_BEGUN + b">>> Curl error (7): no\n") == ("network", Blame.NETWORK)


@pytest.mark.parametrize("code", [1, 3, 124, 137, 143, 255])
def test_every_end_of_dnf_while_it_installs_is_the_packages_but_for_disk_and_emulator(code: int) -> None:
    for said in (b"", _BEGUN, b"\xff" * 10):
        verdict = of_dnf(End(code=code, said=said, host=_WELL, has_begun=True))
        assert verdict is not None
        assert isinstance(verdict.error("filling"), Ended)
    assert _dnf(b"", HostState(disk="nearly full"), has_begun=True)[1] is Blame.DISK
    assert _dnf(b"", HostState(emulator="no emulator"), has_begun=True)[1] is Blame.HOST


@pytest.mark.parametrize(
    "name", ["repomd.xml", "Curl error (7)", "Status code: 404 for", "x\\nError: Failed to download"]
)
def test_no_name_of_a_requirement_passes_for_a_mirror(name: str) -> None:
    assert _dnf(f"No matching package to install: '{name}'\nError: Some packages\n".encode())[1] is Blame.PACKAGE


_EXCLUDED = b"error: Architecture is not included: aarch64\n"


@pytest.mark.parametrize(
    ("said", "row"),
    [
        (_EXCLUDED + b"Installing /builddir/in/source.src.rpm\n", "excluded"),
        (b"warning: x\n" * 100 + _EXCLUDED, "excluded"),
        (b"Executing(%check): /bin/sh -e /var/tmp/rpm-tmp.x\n" + _EXCLUDED, "failed"),
        ((b"ok\n" * 10_000 + _EXCLUDED)[-TAIL_BYTES:], "failed"),
    ],
    ids=["refused", "refused-with-warnings", "printed", "printed-late"],
)
def test_an_arch_is_excluded_by_rpmbuild_before_any_script_and_not_by_a_scripts_output(said: bytes, row: str) -> None:
    verdict = of_rpmbuild(End(code=1, said=said, host=_WELL))
    assert verdict is not None
    assert verdict.case.name == row


def test_the_hosts_own_state_comes_before_output() -> None:
    said = b"error: Architecture is not included: aarch64\n"
    broken = HostState(emulator="no emulator", disk="nearly full")
    verdict = of_rpmbuild(End(code=1, said=said, host=broken))
    assert verdict is not None
    assert verdict.case.blame is Blame.HOST
    assert _dnf(b"Error: Failed to download metadata for repo 'x'\n", HostState(disk="nearly full"))[0] == "disk-full"


def test_a_success_has_no_blame() -> None:
    assert of_rpmbuild(End(code=0, said=b"", host=HostState(disk="nearly full"))) is None
    assert of_dnf(End(code=0, said=_BEGUN + b"Complete!\n", host=_WELL, has_begun=True)) is None


def test_a_great_log_is_searched_quickly() -> None:
    for line in (b"Running transaction\n", b"error: " * 20, b" " * 500 + b"\n", b"nothing provides " * 30 + b"\n"):
        for has_begun in (False, True):
            of_dnf(End(code=1, said=(line * (2**20 // len(line))), host=_WELL, has_begun=has_begun))


def test_the_state_of_this_host_is_looked_up(tmp_path: Path) -> None:
    native = emulator.native_arch()
    assert host_state((tmp_path,), native or Arch.X86_64) == HostState()

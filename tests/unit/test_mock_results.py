"""The files that mock writes beside the packages: complete, odd and hostile."""

import os
from pathlib import Path

import pytest

from farm.model.build import Phase
from workers.formats.rpm.mock.results import peak_memory_bytes, phases, read_from, root_packages, size_of
from workers.roots.root import RootPackage

_STATE = """\
2026-11-21 05:00:00,000 - Start: run
2026-11-21 05:00:00,100 - Start: chroot init
2026-11-21 05:00:02,600 - Finish: chroot init
2026-11-21 05:00:02,600 - Start: build phase for given.src.rpm
2026-11-21 05:00:02,700 - Start: build setup for given.src.rpm
2026-11-21 05:00:04,000 - Finish: build setup for given.src.rpm
2026-11-21 05:00:04,000 - Start: rpmbuild given.src.rpm
2026-11-21 05:00:05,250 - Finish: rpmbuild given.src.rpm
2026-11-21 05:00:05,300 - Start: rpmbuild given.src.rpm
"""


def test_phases_are_mocks_states_in_the_farms_words(tmp_path: Path) -> None:
    (tmp_path / "state.log").write_text(_STATE)
    assert phases(tmp_path) == (
        Phase(name="template", seconds=2.5),
        Phase(name="layer", seconds=1.3),
        Phase(name="rpmbuild", seconds=1.25),
    )


def test_the_root_has_the_list_of_its_own_rpm_with_digests(tmp_path: Path) -> None:
    digest = "0123456789abcdef" * 4
    (tmp_path / "listing").write_text(
        f"gcc-0:14.2.1-1.el9.x86_64 {digest}\nbash-1:5.2-1.el9.x86_64 (none)\ngpg-pubkey-0:d-1.(none) x\n"
    )
    assert root_packages(tmp_path / "listing", tmp_path) == (
        RootPackage(identity="bash-1:5.2-1.el9.x86_64", digest=""),
        RootPackage(identity="gcc-14.2.1-1.el9.x86_64", digest=digest),
    )


def test_without_it_mocks_own_list_tells_the_names(tmp_path: Path) -> None:
    lines = "bash-5.2-1.el9.x86_64 1700000000 123 installed\ngpg-pubkey-8483c65d-5ccc5b19.(none) 1 0 installed\nodd\n"
    (tmp_path / "installed_pkgs.log").write_text(lines)
    assert root_packages(tmp_path / "none", tmp_path) == (RootPackage(identity="bash-5.2-1.el9.x86_64", digest=""),)


@pytest.mark.parametrize("name", ["system_monitor.json", "system_monior.json"])
def test_peak_memory_is_found_under_either_spelling(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"total_max_memory": 4096, "top_process_memory": 1}')
    assert peak_memory_bytes(tmp_path) == 4096


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"total_max_memory": "x"}', "[" * 100_000, "\x00\xff"])
def test_odd_or_missing_files_decide_nothing(text: str, tmp_path: Path) -> None:
    for name in ("system_monitor.json", "state.log", "installed_pkgs.log", "listing"):
        (tmp_path / name).write_text(text)
    assert (peak_memory_bytes(tmp_path), phases(tmp_path)) == (None, ())
    assert root_packages(tmp_path / "listing", tmp_path) == ()


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("bash-5.2-1.el9.x86_64 1 1 installed\n")
    (tmp_path / "left").mkdir()
    (tmp_path / "left/installed_pkgs.log").symlink_to(secret)
    os.mkfifo(tmp_path / "left/state.log")
    assert root_packages(tmp_path / "left/none", tmp_path / "left") == ()
    assert phases(tmp_path / "left") == ()
    assert read_from(tmp_path / "left/installed_pkgs.log", 0, limit_bytes=10) == b""
    assert read_from(tmp_path / "left/state.log", 0, limit_bytes=10) == b""
    assert size_of(tmp_path / "left/installed_pkgs.log") == 0


def test_a_log_is_read_from_where_the_run_began_and_never_more_than_its_end(tmp_path: Path) -> None:
    log = tmp_path / "root.log"
    log.write_bytes(b"before|0123456789")
    assert read_from(log, 7, limit_bytes=100) == b"0123456789"
    assert read_from(log, 0, limit_bytes=4) == b"6789"

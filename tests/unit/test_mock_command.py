"""mock's command lines, word for word, and what must never be in one."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from farm.artifacts.directory import DirectoryStore
from farm.config import Settings
from farm.errors import HostUnfit
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import Limits
from workers.core.context import Ended, StepContext
from workers.core.log import StepLog
from workers.formats.rpm.mock import host
from workers.formats.rpm.mock.command import MockCall, build_arguments, unique_ext
from workers.formats.rpm.mock.host import Account, Isolation, MockHost, find_host

HOST = MockHost(program=Path("/usr/bin/mock"), version="6.7", account=None, can_nspawn=False)
CALL = MockCall(
    host=HOST,
    config=Path("/data/farm-x.cfg"),
    isolation=Isolation.SIMPLE,
    unique="12_build_x86_64_1",
    results=Path("/room/left"),
    root=Path("/room/root"),
    build=("--target=x86_64",),
)
_COMMON = [
    "--root=/data/farm-x.cfg",
    "--isolation=simple",
    "--uniqueext=12_build_x86_64_1",
    "--rootdir=/room/root",
    "--resultdir=/room/left",
    "--target=x86_64",
]


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    with StepLog(tmp_path / "log", limit_bytes=1000) as log:
        return StepContext(
            attempt="12.build.x86_64.1",
            workdir=tmp_path,
            log=log,
            store=DirectoryStore(tmp_path / "store"),
            settings=Settings.from_env({"FARM_DATA": str(tmp_path)}),
            limits=Limits(),
            stop=threading.Event(),
            deadline=time.monotonic() + 100,
        )


def test_a_run_with_network() -> None:
    assert CALL.argv("--installdeps", "x.src.rpm") == ["/usr/bin/mock", *_COMMON, "--installdeps", "x.src.rpm"]


def test_a_run_of_a_recipe_is_in_a_network_of_its_own_and_mock_knows_that_it_is_offline() -> None:
    script = str(Path(host.__file__).with_name("offline.sh"))
    assert CALL.argv("--rebuild", "x.src.rpm", offline=True) == [
        *("unshare", "--net", "--", "sh", script),
        *("/usr/bin/mock", *_COMMON, "--offline", "--rebuild", "x.src.rpm"),
    ]


def test_mock_runs_as_its_account_and_the_network_goes_first() -> None:
    """Once it is not root any more it could make no network namespace."""
    call = replace(CALL, host=replace(HOST, account=Account(uid=990, gid=135)))
    words = call.argv("--clean", offline=True)
    identity = ["setpriv", "--reuid=990", "--regid=135", "--init-groups", "--", "/usr/bin/mock"]
    assert words[: words.index("/usr/bin/mock") + 1][-6:] == identity
    assert words[:2] == ["unshare", "--net"]


def test_an_attempts_label_becomes_a_part_of_a_path() -> None:
    assert unique_ext("12.build.x86_64.1") == "12_build_x86_64_1"
    assert unique_ext("../../etc") == "_etc"


def test_options_and_repositories_are_arguments(context: StepContext) -> None:
    options = BuildOptions(with_=("docs",), without=("tests",), defines=(("flavour", "a b"), ("f(x)", "%1")))
    words = build_arguments(Arch.AARCH64, options, (("farm", "https://farm.example/{arch}/7"),), context)
    assert words[:-1] == (
        "--target=aarch64",
        "--with=docs",
        "--without=tests",
        "--define=flavour a b",
        "--define=f(x) %1",
        "--addrepo=https://farm.example/aarch64/7",
    )
    assert words[-1] in ("--rpmbuild_timeout=100", "--rpmbuild_timeout=99")


@pytest.mark.parametrize("value", ["{{ 7 * 7 }}", "x {% include 'x' %}", "{# x #}", "a\nb", "\x1b[0m", "", "  "])
def test_a_macro_that_mock_would_expand_on_the_host_is_refused(value: str, context: StepContext) -> None:
    with pytest.raises(Ended, match="the macro flavour cannot be passed to mock") as caught:
        build_arguments(Arch.X86_64, BuildOptions(defines=(("flavour", value),)), (), context)
    assert caught.value.outcome is Outcome.FAILED
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize(
    "options",
    [
        BuildOptions(with_=("a b",)),
        BuildOptions(without=("{{x}}",)),
        BuildOptions(with_=("-x",)),
        BuildOptions(defines=(("a b", "1"),)),
        BuildOptions(defines=(("-D", "1"),)),
    ],
)
def test_a_name_that_is_none_is_refused(options: BuildOptions, context: StepContext) -> None:
    with pytest.raises(Ended, match="is no name for"):
        build_arguments(Arch.X86_64, options, (), context)


# --- the host ---------------------------------------------------------------------------------------------------------


def test_auto_is_nspawn_where_mock_can_and_simple_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert HOST.isolation("auto") is Isolation.SIMPLE
    assert replace(HOST, can_nspawn=True).isolation("auto") is Isolation.NSPAWN


def test_nspawn_is_not_silently_replaced() -> None:
    with pytest.raises(HostUnfit, match="needs systemd as process 1"):
        HOST.isolation("nspawn")


def test_simple_without_root_would_leave_builds_on_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(HostUnfit, match="gives builds the network"):
        HOST.isolation("simple")
    assert replace(HOST, can_nspawn=True).isolation("auto") is Isolation.NSPAWN


def test_an_isolation_that_is_none_is_named() -> None:
    with pytest.raises(HostUnfit, match="'chroot' is not auto, nspawn or simple"):
        HOST.isolation("chroot")


def _mock_on_path(folder: Path, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mock").write_text(f"#!/bin/sh\n{says}\n")
    (folder / "mock").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_host_without_mock_is_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostUnfit, match="mock is not installed on this host; run deploy/bootstrap"):
        find_host()


@pytest.mark.parametrize("says", ["echo 1.4.21", "echo not a version", "exit 3"])
def test_an_old_or_broken_mock_is_unfit(says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _mock_on_path(tmp_path, says, monkeypatch)
    with pytest.raises(HostUnfit):
        find_host()

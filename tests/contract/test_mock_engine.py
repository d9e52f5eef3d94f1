"""The mock engine's runs, in order, against a mock that records its calls and ends as it is told."""

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from farm.artifacts.directory import DirectoryStore
from farm.config import Settings
from farm.errors import HostUnfit, NetworkTrouble, RootTrouble
from farm.formats.rpm.settings import MockSettings, RpmSettings
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import EngineName, Target
from workers.core.context import StepContext
from workers.core.log import StepLog
from workers.formats.base import BuildRequest, Made, SourceRequest
from workers.formats.rpm import asking
from workers.formats.rpm.asking import AskRequest, Told
from workers.formats.rpm.mock.engine import MockEngine
from workers.formats.rpm.mock.host import Account, MockHost

STAND_IN = Path(__file__).parent.parent / "tools/mock"
_TARGET = Target(
    name="mocked",
    distribution="demo",
    release="1",
    engine=EngineName.MOCK,
    arches=(Arch.X86_64,),
    repositories=(),
    packages=(),
    table=RpmSettings(mock=MockSettings(config="demo-{arch}", isolation="nspawn")).table,
)
_SIMPLE = replace(_TARGET, table=RpmSettings(mock=MockSettings(config="demo-{arch}", isolation="simple")).table)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network namespace")


@dataclass
class Mocked:
    """An engine over a stand-in of its own. `log` is the attempt's, `calls` are mock's words after the common ones."""

    folder: Path
    engine: MockEngine
    settings: Settings
    target: Target = _TARGET
    log: str = ""

    def plan(self, **modes: dict[str, Any]) -> None:
        plan = {f"--{mode}": end for mode, end in modes.items()}
        (self.folder / "plan.json").write_text(json.dumps(plan))

    def rpms(self, options: BuildOptions = BuildOptions()) -> Made:  # noqa: B008 - a frozen value
        given = self.folder / "x-1-1.src.rpm"
        given.write_bytes(b"given")
        request = BuildRequest(
            target=self.target,
            arch=Arch.X86_64,
            options=options,
            source=given,
            requires=(),
            repositories=(("farm", "file:///farm/3"),),
        )
        made: Made = self._run(lambda context: self.engine.build(request, context))
        return made

    def srpm(self, **given: Any) -> Made:
        request = SourceRequest(target=self.target, arch=Arch.X86_64, options=BuildOptions(), **given)
        made: Made = self._run(lambda context: self.engine.make_source(request, context))
        return made

    def ask(self, folder: Path) -> Told:
        request = AskRequest(
            target=self.target, arches=(Arch.X86_64,), options=BuildOptions(), folder=folder, recipe="a.spec"
        )
        told: Told = self._run(lambda context: self.engine.ask(request, context))
        return told

    def _run(self, what: Any) -> Any:
        workdir = Path(tempfile.mkdtemp(dir=self.settings.data))
        with StepLog(workdir / "log", limit_bytes=2**20) as log:
            context = StepContext(
                attempt="7.build.x86_64.1",
                workdir=workdir,
                log=log,
                store=DirectoryStore(self.settings.artifacts),
                settings=self.settings,
                limits=self.target.limits,
                stop=threading.Event(),
                deadline=time.monotonic() + 60,
            )
            try:
                made = what(context)
            finally:
                self.log = log.path.read_text()
        return made

    @property
    def raw_calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "calls.jsonl").read_text().splitlines()]

    @property
    def calls(self) -> list[list[str]]:
        common = (
            "--root=",
            "--isolation=",
            "--uniqueext=",
            "--rootdir=",
            "--resultdir=",
            "--target=",
            "--rpmbuild_tim",
        )
        return [[word for word in call["words"] if not word.startswith(common)] for call in self.raw_calls]

    @property
    def modes(self) -> list[str]:
        known = {"--rebuild", "--buildsrpm", "--init", "--update", "--installdeps", "--copyin", "--copyout", "--chroot"}
        return [next(word for word in call if word in known or word == "--clean") for call in self.calls]


@pytest.fixture
def mocked(tmp_path: Path) -> Iterator[Mocked]:
    """However the run ends, mock cleans up and the session's folder is removed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    host = MockHost(program=Path(shutil.copy(STAND_IN, folder)), version="6.7", account=None, can_nspawn=True)
    settings = Settings.from_env({"FARM_DATA": str(tmp_path / "data")})
    settings.data.mkdir()
    found = Mocked(folder=folder, engine=MockEngine(settings, host=host), settings=settings)
    yield found
    assert found.modes[-1] == "--clean"
    assert list((settings.work / "mock").iterdir()) == []


def test_with_nspawn_one_run_builds_and_mock_itself_cuts_the_network(mocked: Mocked) -> None:
    mocked.plan(rebuild={"code": 0})
    run = mocked.rpms(BuildOptions(with_=("x",), defines=(("a", "b c"),)))
    assert run.outcome is Outcome.SUCCEEDED, mocked.log
    assert mocked.modes == ["--rebuild", "--chroot", "--clean"]
    options = ["--with=x", "--define=a b c", "--addrepo=file:///farm/3"]
    assert mocked.calls[0][:-1] == [*options, "--no-cleanup-after", "--rebuild"]
    words = mocked.raw_calls[0]["words"]
    assert {"--isolation=nspawn", "--uniqueext=7_build_x86_64_1", "--target=x86_64"} <= set(words)


def test_every_run_has_the_same_configuration_and_root(mocked: Mocked) -> None:
    mocked.plan(rebuild={"code": 0})
    mocked.rpms()
    mocked.rpms()
    for option in ("--root=", "--uniqueext=", "--isolation="):
        assert len({word for call in mocked.raw_calls for word in call["words"] if word.startswith(option)}) == 1


@needs_root
def test_with_simple_a_recipe_runs_offline_and_only_the_package_manager_has_the_network(mocked: Mocked) -> None:
    mocked.target = replace(
        _TARGET, table=RpmSettings(mock=MockSettings(config="demo-{arch}", isolation="simple")).table
    )
    mocked.plan(installdeps={"code": 0}, rebuild={"code": 0})
    assert mocked.rpms().outcome is Outcome.SUCCEEDED, mocked.log
    assert mocked.modes == ["--update", "--installdeps", "--rebuild", "--chroot", "--clean"]
    offline = [mode for mode, call in zip(mocked.modes, mocked.calls, strict=True) if "--offline" in call]
    assert offline == ["--rebuild", "--chroot"]
    alone = [mode for mode, call in zip(mocked.modes, mocked.raw_calls, strict=True) if call["interfaces"] == ["lo"]]
    assert set(offline) <= set(alone)
    assert {"--no-clean", "--no-cleanup-after"} <= set(mocked.calls[2])


@needs_root
def test_with_simple_a_spec_is_read_offline_too(mocked: Mocked, tmp_path: Path) -> None:
    mocked.target = replace(
        _TARGET, table=RpmSettings(mock=MockSettings(config="demo-{arch}", isolation="simple")).table
    )
    mocked.plan(buildsrpm={"code": 1, "build_log": "error: line 3: Unknown tag\n"})
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/x.spec").write_text("Name: x")
    assert mocked.srpm(sources=tmp_path / "sources", recipe="x.spec").outcome is Outcome.FAILED
    assert mocked.modes == ["--init", "--buildsrpm", "--clean"]
    assert "--offline" in mocked.calls[1]


def test_a_source_package_that_cannot_be_taken_out_is_the_packages_failure(mocked: Mocked, tmp_path: Path) -> None:
    given = tmp_path / "given.src.rpm"
    given.write_bytes(b"x")
    mocked.plan(copyin={"code": 0}, chroot={"code": 0}, copyout={"code": 50})
    run = mocked.srpm(package=given)
    assert run.outcome is Outcome.FAILED
    assert "taken out of the root" in (run.reason or "")
    assert mocked.modes == ["--init", "--copyin", "--chroot", "--copyout", "--clean"]


def test_a_spec_that_rpmbuild_refuses_in_the_root_fails_and_does_not_trouble(mocked: Mocked, tmp_path: Path) -> None:
    given = tmp_path / "given.src.rpm"
    given.write_bytes(b"x")
    mocked.plan(copyin={"code": 0}, chroot={"code": 1, "output": "error: line 3: Unknown tag"})
    assert mocked.srpm(package=given).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        ({"code": 10, "build_log": "error: x\n"}, Outcome.FAILED),
        ({"code": 1, "build_log": "error: x\n"}, Outcome.FAILED),
        ({"code": 11, "output": "ERROR: Timeout(9) expired for command:"}, Outcome.TIMED_OUT),
        ({"code": 30, "root_log": "No matching package to install: 'foo'\n"}, Outcome.UNRESOLVABLE),
        ({"code": 40}, Outcome.FAILED),
    ],
)
def test_a_code_that_is_the_packages_doing_is_a_result(mocked: Mocked, end: dict[str, Any], outcome: Outcome) -> None:
    mocked.plan(rebuild=end)
    run = mocked.rpms()
    assert (run.outcome, list(run.results.iterdir())) == (outcome, [])


@pytest.mark.parametrize(
    ("end", "trouble"),
    [
        ({"code": 20}, RootTrouble),
        ({"code": 60}, RootTrouble),
        ({"code": 80}, HostUnfit),
        ({"code": 5}, HostUnfit),
        ({"code": 30, "root_log": "Curl error (28): Timeout was reached\n"}, NetworkTrouble),
    ],
)
def test_a_code_that_is_the_farms_doing_is_trouble(mocked: Mocked, end: dict[str, Any], trouble: type) -> None:
    mocked.plan(rebuild=end)
    with pytest.raises(trouble):
        mocked.rpms()


def test_the_package_managers_output_is_in_the_attempts_log(mocked: Mocked) -> None:
    mocked.plan(rebuild={"code": 30, "root_log": "DEBUG: No matching package to install: 'foo'\n"})
    assert mocked.rpms().reason == "nothing provides foo"
    assert "DEBUG: No matching package to install: 'foo'" in mocked.log


def test_the_roots_packages_are_known_of_a_failed_build_too(mocked: Mocked) -> None:
    mocked.plan(rebuild={"code": 10, "build_log": "error: x\n"})
    assert [package.identity for package in mocked.rpms().root] == ["bash-5.2.15-2.x86_64"]


@needs_root
def test_mocks_account_reads_its_input_and_writes_its_results(mocked: Mocked) -> None:
    """Only the worker can enter the attempts' own work folders."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as open_to_all:
        folder = Path(open_to_all)
        folder.chmod(0o755)
        program = folder / "mock"
        program.write_text(
            "#!/bin/sh\nset -e\nid -u\n"
            "for word; do case $word in --resultdir=*) left=${word#*=} ;; esac; last=$word; done\n"
            'case $last in *given*) cat "$last" && echo built > "$left/x-1-1.noarch.rpm" ;; esac\n'
        )
        program.chmod(0o755)
        settings = Settings.from_env({"FARM_DATA": str(folder / "data")})
        settings.data.mkdir()
        settings.data.chmod(0o755)
        host = MockHost(program=program, version="6.7", account=Account(uid=65534, gid=65534), can_nspawn=True)
        other = Mocked(folder=mocked.folder, engine=MockEngine(settings, host=host), settings=settings)
        run = other.rpms()
        assert run.outcome is Outcome.SUCCEEDED, other.log
        assert "65534\ngiven" in other.log
        assert [path.name for path in run.results.iterdir()] == ["x-1-1.noarch.rpm"]
    mocked.plan(rebuild={"code": 0})
    mocked.rpms()


@needs_root
def test_a_folder_that_keeps_mocks_account_out_is_named(mocked: Mocked) -> None:
    host = MockHost(
        program=mocked.folder / "mock", version="6.7", account=Account(uid=65534, gid=65534), can_nspawn=True
    )
    mocked.settings.data.chmod(0o700)
    other = replace(mocked, engine=MockEngine(mocked.settings, host=host))
    with pytest.raises(HostUnfit, match=r"chmod o\+x /"):
        other.rpms()
    mocked.plan(rebuild={"code": 0})
    mocked.rpms()


def test_a_macro_that_mock_would_expand_fails_before_anything_runs(mocked: Mocked) -> None:
    mocked.plan(rebuild={"code": 0})
    run = mocked.rpms(BuildOptions(defines=(("x", "{{ 1 }}"),)))
    assert (run.outcome, "cannot be passed to mock" in (run.reason or "")) == (Outcome.FAILED, True)
    assert not (mocked.folder / "calls.jsonl").exists()
    mocked.rpms()


def _asked(folder: Path, tags: str) -> Path:
    folder.mkdir()
    text = f"Name: a\nVersion: 1\nRelease: 1\nSummary: s\nLicense: MIT\n{tags}\n%description\nd\n"
    (folder / "a.spec").write_bytes(text.encode() + asking.QUESTION_AT_END)
    return folder


def test_rpm_in_the_root_tells_the_sources(mocked: Mocked, tmp_path: Path) -> None:
    told = mocked.ask(_asked(tmp_path / "asked", "Source3: http://h/%{name}-%{version}%{?no}.tar\nNoSource: 3"))
    assert mocked.modes[:5] == ["--init", "--copyin", "--copyin", "--copyin", "--chroot"]
    found = asking.answers(told, (Arch.X86_64,))[Arch.X86_64]
    assert [(one.label, one.value, one.filename) for one in found.sources] == [
        ("Source3", "http://h/a-1.tar", "a-1.tar")
    ]
    assert (found.name, found.version, found.withheld) == ("a", "1", ("Source3",))


def test_a_spec_that_rpm_cannot_read_has_rpms_reason(mocked: Mocked, tmp_path: Path) -> None:
    told = mocked.ask(_asked(tmp_path / "asked", "Nonsense: x"))
    assert (told.outcome, told.reason) == (Outcome.FAILED, None)
    assert asking.parse_error(told.said) == "line 6: Unknown tag: Nonsense: x"

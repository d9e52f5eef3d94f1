"""Every recorded log gets the right blame, and every row of a table has a log."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from farm.errors import DiskFull, FarmError, HostUnfit, NetworkTrouble, RootTrouble, SourceUnavailable
from farm.model.outcome import Outcome
from farm.model.target import Limits
from workers.core.context import Ended
from workers.core.run import CommandFailed, Completed
from workers.formats.rpm.blame import DNF, DNF_BEGUN, RPMBUILD, Blame, End, HostState, of_dnf, of_rpmbuild
from workers.formats.rpm.mock import exit_codes
from workers.isolation.outcomes import LimitsMet, judge
from workers.sources import git_blame

LOGS = Path(__file__).parent.parent / "data/logs"
_TROUBLE: dict[type[FarmError], str] = {
    NetworkTrouble: "network",
    DiskFull: "disk",
    RootTrouble: "root",
    HostUnfit: "host",
    SourceUnavailable: "source",
}
_OVER_LIMIT = "over-limit"  # judged in ends.py, before the table is asked


def _cases(tool: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((LOGS / tool / "cases.toml").read_text())


def _each(tool: str) -> Any:
    return pytest.mark.parametrize("name", sorted(_cases(tool)))


def _said(tool: str, name: str, case: dict[str, Any]) -> bytes:
    return (LOGS / tool / f"{case.get('log', name)}.log").read_bytes()


def _end(tool: str, name: str, case: dict[str, Any]) -> End:
    host = HostState(disk=case.get("disk"), emulator=case.get("emulator"))
    said, has_begun = _said(tool, name, case), case.get("begun", False)
    return End(code=case.get("code"), signal=case.get("signal"), said=said, host=host, has_begun=has_begun)


@_each("dnf")
def test_dnf(name: str) -> None:
    case = _cases("dnf")[name]
    verdict = of_dnf(_end("dnf", name, case))
    assert verdict is not None
    assert verdict.case.name == case["row"], verdict
    assert case["says"] in verdict.reason
    assert verdict.reason.isprintable()
    raised = verdict.error("filling", is_packages_own=True)
    assert isinstance(raised, Ended) == (verdict.case.blame is Blame.PACKAGE)
    assert not isinstance(verdict.error("filling", is_packages_own=False), Ended)


def test_a_dnf_that_did_what_it_should_is_not_blamed() -> None:
    said = (LOGS / "dnf/package-404.log").read_bytes()
    assert of_dnf(End(code=0, said=said, host=HostState(disk="nearly full"))) is None


@_each("rpmbuild")
def test_rpmbuild(name: str) -> None:
    case = _cases("rpmbuild")[name]
    end = _end("rpmbuild", name, case)
    completed = Completed(code=end.code, signal=end.signal, seconds=1.0, tail=end.said)
    outcome, reason = judge(completed, Limits(), LimitsMet(memory_kills=case.get("memory_kills", 0)))
    if case["row"] == _OVER_LIMIT:
        assert outcome is Outcome.OVER_LIMIT
        assert case["says"] in (reason or "")
        return
    assert (outcome, reason) == (Outcome.FAILED, None), "no limit has to do with it"
    verdict = of_rpmbuild(end)
    assert verdict is not None
    assert verdict.case.name == case["row"], verdict
    assert case.get("says", "") in verdict.reason


@_each("git")
def test_git(name: str) -> None:
    case = _cases("git")[name]
    error = CommandFailed("git failed", Completed(code=128, signal=None, seconds=1.0), _said("git", name, case))
    judged = git_blame.judge(error, shown="http://git.example/repo.git", root=Path("/farm"), limit_bytes=100_000)
    assert _verdict(judged) == case["verdict"], judged
    assert case["says"] in str(judged)


@_each("mock")
def test_mock(name: str) -> None:
    case = _cases("mock")[name]
    root, build = (_of(case.get(part)) for part in ("root", "build"))
    said = exit_codes.Said(output=str(case.get("output", "")).encode(), root_log=root, build_log=build)
    try:
        found = str(exit_codes.judge(case["code"], said).outcome)
    except FarmError as error:
        found = _verdict(error)
    assert found == case["verdict"]


def _of(log: str | None) -> bytes:
    return (LOGS / f"{log}.log").read_bytes() if log else b""


def _verdict(error: FarmError) -> str:
    return str(error.outcome) if isinstance(error, Ended) else _TROUBLE[type(error)]


def test_every_row_has_a_log_and_every_log_a_case() -> None:
    assert {case["row"] for case in _cases("dnf").values()} == {case.name for case in (*DNF, *DNF_BEGUN)}
    assert {case["row"] for case in _cases("rpmbuild").values()} == {case.name for case in RPMBUILD} | {_OVER_LIMIT}
    assert {case["code"] for case in _cases("mock").values()} == set(exit_codes.EXIT_CODES)
    for tool in ("dnf", "rpmbuild", "git"):
        named = {case.get("log", name) for name, case in _cases(tool).items()}
        assert {path.stem for path in (LOGS / tool).glob("*.log")} == named


@pytest.mark.parametrize("tool", ["dnf", "rpmbuild", "git", "mock"])
def test_every_case_says_how_it_was_made(tool: str) -> None:
    assert all(case["made"] for case in _cases(tool).values())

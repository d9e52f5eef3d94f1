"""`python -m workers.by_hand` as its docstring says: the four steps by hand, and messages for wrong input."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from farm.config import Settings
from farm.model.arch import Arch
from farm.repositories import RepositoryKind, RepositoryName, open_repositories
from tests.leftovers import inside
from tests.packages import make_git, make_srpm
from tests.rpms import read_repository
from tests.waiting import until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="build roots need root"),
]
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, kw_only=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, kw_only=True)
class Hand:
    """A person in a folder, with FARM_DATA set."""

    data: Path
    folder: Path

    def types(self, *words: str | Path, into: str | None = None, **env: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "workers.by_hand", *map(str, words)],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "FARM_DATA": str(self.data), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if into:
            (self.folder / into).write_text(done.stdout)
        assert "Traceback" not in done.stderr, done.stderr
        return Said(code=done.returncode, out=done.stdout, err=done.stderr)

    def error(self, *words: str | Path) -> tuple[int, str]:
        """The exit code and the one line that it says."""
        said = self.types(*words)
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        return said.code, said.err


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Path:
    data = tmp_path_factory.mktemp("farm")
    (data / "demo").mkdir()
    (data / "demo/distribution").symlink_to(demo_distribution)
    return data


@pytest.fixture
def hand(data: Path, tmp_path: Path) -> Hand:
    return Hand(data=data, folder=tmp_path)


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what fetch, srpm and build of a good package printed."""
    hand = Hand(data=data, folder=tmp_path_factory.mktemp("done"))
    repository = make_git("hello-c", hand.folder)
    assert hand.types("fetch", "--git", repository, "--target", "demo", into="fetch.json").code == 0
    assert hand.types("srpm", "--after", "fetch.json", into="srpm.json").code == 0
    assert hand.types("build", "--after", "srpm.json", into="build.json").code == 0
    return hand.folder


def test_the_four_steps_end_in_a_repository(hand: Hand, done: Path) -> None:
    said = hand.types("upload", "--after", done / "build.json")
    assert (said.code, said.document["outcome"]) == (0, "succeeded"), said.err
    name = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=_native())
    backend = open_repositories(Settings(data=hand.data))
    url = backend.url(name, backend.current(name))
    assert f"hello-c-1.0-1.demo1.{_native().rpm}.rpm" in read_repository(url)
    assert said.err.startswith("upload: succeeded in ")
    assert Path(said.err.rpartition("log: ")[2].strip()).is_file()


def _native() -> Arch:
    return Arch(os.uname().machine)


def test_the_document_of_a_step_names_its_log_and_all_artifacts(done: Path) -> None:
    document = json.loads((done / "build.json").read_text())
    assert sorted(document["outputs"]) == ["build", "fetch", "srpm"]
    assert b"[farm] build of hello-c for demo" in Path(document["log"]).read_bytes()


def test_a_step_may_be_done_again(hand: Hand, done: Path) -> None:
    for _ in range(2):
        said = hand.types("srpm", "--after", done / "build.json")
        assert said.code == 0
        assert said.document["outputs"]["srpm"] == json.loads((done / "srpm.json").read_text())["outputs"]["srpm"]


def test_a_package_that_fails_has_its_exit_code_and_nothing_follows(hand: Hand) -> None:
    srpm = make_srpm("fails-check", hand.folder)
    assert hand.types("fetch", "--srpm", srpm, "--target", "demo", into="fetch.json").code == 0
    assert hand.types("srpm", "--after", "fetch.json", into="srpm.json").code == 0
    said = hand.types("build", "--after", "srpm.json", into="build.json")
    assert (said.code, said.document["reason"]) == (10, "FAIL: test_answer")
    assert said.err.startswith("build: failed: FAIL: test_answer in ")
    code, error = hand.error("upload", "--after", "build.json")
    assert code == 20
    assert "the build step failed (FAIL: test_answer); the next step has no input" in error


def test_a_missing_provider_has_its_own_exit_code(hand: Hand) -> None:
    hand.types("fetch", "--git", make_git("unresolvable", hand.folder), "--target", "demo", into="fetch.json")
    hand.types("srpm", "--after", "fetch.json", into="srpm.json")
    assert hand.types("build", "--after", "srpm.json").code == 11


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("fetch --target demo", 20, "exactly one of --git and --srpm"),
        ("fetch --target demo --git x --srpm y", 20, "exactly one of --git and --srpm"),
        ("fetch --target nope --git x", 21, "there is no target 'nope'; there are "),
        ("fetch --target demo --srpm nothing.src.rpm", 25, "nothing.src.rpm' does not exist"),
        ("fetch --target demo --srpm .", 25, "is not a regular file"),
        ("srpm --after rubbish", 20, "rubbish is not the output of a step (JSON is malformed"),
        ("srpm --after other.json", 20, "other.json is not the output of a step (Object missing required field"),
        ("build --after {done}/fetch.json", 20, "not srpm; run `python -m workers.by_hand srpm` first"),
        ("upload --after {done}/fetch.json", 20, "not srpm; run `python -m workers.by_hand srpm` first"),
        ("upload --after {done}/srpm.json", 20, "not build; run `python -m workers.by_hand build` first"),
    ],
)
def test_wrong_input_is_named_with_the_next_step(hand: Hand, done: Path, words: str, code: int, said: str) -> None:
    (hand.folder / "rubbish").write_text("no JSON")
    (hand.folder / "other.json").write_text("{}")
    found, error = hand.error(*words.format(done=done).split())
    assert found == code
    assert said in error


def test_usage_is_said_by_the_parser(hand: Hand) -> None:
    assert hand.types("build", "--after", "nothing.json").code == 2
    assert hand.types("build", "--after", "nothing.json", "--arch", "s390x").code == 2
    assert "fetch" in hand.types("--help").out


def test_a_changed_document_is_refused(hand: Hand, done: Path) -> None:
    document = json.loads((done / "fetch.json").read_text())
    document["outputs"]["fetch"] = {"archive": 1}
    (hand.folder / "changed.json").write_text(json.dumps(document))
    code, error = hand.error("srpm", "--after", "changed.json")
    assert code == 20
    assert "changed.json is not the output of a step" in error
    assert "run fetch again" in error


def test_trouble_names_its_log(hand: Hand, done: Path, tmp_path: Path) -> None:
    """Here the artifacts are those of another FARM_DATA, so the source archive is not there."""
    said = hand.types("srpm", "--after", done / "fetch.json", FARM_DATA=str(tmp_path / "elsewhere"))
    assert said.code == 56
    assert "no artifact" in said.err
    assert b"farm trouble (input-missing)" in Path(said.err.rpartition("log: ")[2].strip()).read_bytes()


def test_ctrl_c_ends_a_build_and_leaves_nothing(hand: Hand) -> None:
    hand.types("fetch", "--git", make_git("never-ends", hand.folder), "--target", "demo", into="fetch.json")
    hand.types("srpm", "--after", "fetch.json", into="srpm.json")
    command = [sys.executable, "-m", "workers.by_hand", "build", "--after", "srpm.json"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "FARM_DATA": str(hand.data)}
    with subprocess.Popen(
        command, cwd=hand.folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as build:
        until(lambda: inside(Settings(data=hand.data)), "the build")
        build.send_signal(signal.SIGINT)
        _, error = build.communicate(timeout=30)
    assert build.returncode == 130
    assert b"Traceback" not in error
    assert inside(Settings(data=hand.data)) == []
    assert list((hand.data / "work").iterdir()) == []

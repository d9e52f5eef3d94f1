"""The examples in the documentation of the Python interface run as they are written."""

import doctest
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farm.client import farm as client
from farm.formats.rpm import options as rpm_options
from farm.model import actor
from farm.service import limits as service_limits
from farm.service import log as service_log
from farm.service import tokens as service_tokens
from tests.driven_farm import DrivenFarm, driven_farm

DOCS = Path(__file__).parents[2] / "docs/python.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)


@pytest.fixture
def driven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DrivenFarm]:
    with driven_farm(tmp_path) as driven:
        for name, value in driven.env.items():
            monkeypatch.setenv(name, value)
        yield driven


def run(example: str, work: Callable[[], None], **names: object) -> None:
    """Run an example while `work` does what the farm would; if that fails, so does the example."""
    failed: list[BaseException] = []

    def play() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=play)
    thread.start()
    exec(compile(example, str(DOCS), "exec"), names)
    thread.join()
    assert not failed


def _await_builds(driven: DrivenFarm, count: int) -> None:
    pause = threading.Event()
    while len(driven.farm.builds()) < count:
        pause.wait(0.01)


@pytest.mark.parametrize(
    "module",
    [actor, client, rpm_options, service_limits, service_log, service_tokens],
    ids=lambda module: module.__name__,
)
def test_examples_in_docstrings_are_true(module: object) -> None:
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)  # type: ignore[arg-type]
    assert (result.failed, result.attempted > 0) == (0, True)


def test_a_build_is_waited_for_and_retried(driven: DrivenFarm, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        _await_builds(driven, 1)
        driven.to_build(1)
        driven.fail("1.build.x86_64.1", "no luck")

    run(EXAMPLES[0], work)
    said = capsys.readouterr().out
    assert "1 hello build x86_64 failed" in said
    assert said.endswith("build x86_64: no luck\n")
    assert driven.farm.build(1).outcome is None


def test_many_are_waited_for(driven: DrivenFarm, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        _await_builds(driven, 2)
        for number in (1, 2):
            driven.farm.cancel(number)

    run(EXAMPLES[1], work, urls=["https://example.org/a.git", "https://example.org/b.git"])
    assert "2 b cancelled cancelled by ann" in capsys.readouterr().out


def test_artifacts_of_a_build_are_kept(driven: DrivenFarm, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    request = driven.farm.request(git="https://example.org/a.git", target="demo", arches=["x86_64"])
    driven.farm.enqueue_many([request] * 12)
    driven.finish(12)
    run(EXAMPLES[2].replace('"results"', f'"{tmp_path}/results"'), lambda: None, farm=driven.farm)
    assert f"{tmp_path}/results/hello-1-1.x86_64.rpm" in capsys.readouterr().out.splitlines()


def test_a_program_acts_for_another_person(driven: DrivenFarm) -> None:
    run(EXAMPLES[3], lambda: None)
    (build,) = driven.farm.builds()
    assert (build.owner, build.package) == ("ben", "hello")

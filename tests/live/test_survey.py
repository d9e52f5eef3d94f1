"""A build finds the same as everywhere else: the survey in a root that a Celery worker made, and on bare metal. There
is no survey of mock: the tests have only a stand-in for it, which runs the host's rpmbuild in no root."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm import Farm
from farm.config import Settings
from farm.model.outcome import Outcome
from farm.up.embedded import running_farm
from tests import survey
from tests.packages import make_git

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="build roots need root"),
]
WITHIN_S = 90.0


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Iterator[Farm]:
    """A farm whose processes were started with signals ignored and a private umask, as by nohup in a service."""
    data = tmp_path_factory.mktemp("f")
    (data / "demo").mkdir()
    (data / "demo/distribution").symlink_to(demo_distribution)
    settings = Settings.from_env({"FARM_DATA": str(data), "FARM_OWNER": "tester"})
    ignored = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGQUIT)}
    umask = os.umask(0o077)
    try:
        with running_farm(settings, build_slots=1) as _, Farm.connect(settings) as farm:
            os.umask(umask)
            yield farm
    finally:
        os.umask(umask)
        for number, handler in ignored.items():
            signal.signal(number, handler)


@pytest.fixture(scope="module")
def found(farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The answers of a build."""
    folder = tmp_path_factory.mktemp("survey")
    build = farm.enqueue(git=str(make_git("survey", folder)), target="demo", arches=["x86_64"])
    result = build.wait(timeout_s=WITHIN_S)
    assert result.outcome is Outcome.SUCCEEDED, result.reason
    return survey.answers(b"".join(farm.log(result.id, step="build")).decode(errors="replace"))


def test_a_build_of_a_celery_worker_finds_all_but_what_the_docs_list(found: dict[str, str]) -> None:
    assert len(found) >= survey.QUESTIONS_MIN
    assert set(survey.refused(found)) == survey.DIFFERENCES, survey.refused(found)


def test_an_unprivileged_user_of_this_machine_gets_no_better_answers(found: dict[str, str]) -> None:
    bare = survey.on_bare_metal()
    assert bare.keys() == found.keys()
    worse = {question for question, answer in bare.items() if answer == "yes" and found[question] != "yes"}
    assert worse <= survey.DIFFERENCES

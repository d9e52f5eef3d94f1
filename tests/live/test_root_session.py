"""A session of a real root: commands that share files and nothing else, and what one may do to the next."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from farm.config import Settings
from farm.errors import LeaseLost
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from farm.model.target import Target
from tests.contexts import demo_target, step_context
from workers.core.context import Ended, StepContext
from workers.formats.registry import format_of
from workers.formats.rpm.native import native_roots
from workers.isolation.confine import confinement
from workers.isolation.sandbox import Bind
from workers.roots.session import RootSession

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="build roots are overlays, which only root mounts"),
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.from_env({"FARM_DATA": str(tmp_path_factory.mktemp("farm"))})


@pytest.fixture(scope="module")
def target(demo_distribution: Path) -> Target:
    return demo_target(demo_distribution)


@contextmanager
def opened(settings: Settings, target: Target, folder: Path, *wanted: str) -> Iterator[tuple[RootSession, StepContext]]:
    (folder / "work").mkdir(parents=True)
    with (
        step_context(settings, folder / "work", folder / "log", limits=target.limits, wall_s=300) as context,
        format_of(target).roots(settings).root(target, Arch.X86_64, wanted, context) as session,
    ):
        yield session, context


@contextmanager
def over_a_layer(settings: Settings, target: Target, folder: Path) -> Iterator[RootSession]:
    """A session with an overlay of its own, whose /opt a package has made writable for all."""
    (folder / "work").mkdir(parents=True)
    with (
        step_context(settings, folder / "work", folder / "log", limits=target.limits, wall_s=300) as context,
        native_roots(settings).template(target, Arch.X86_64, context) as template,
    ):
        confined = confinement(settings, target)
        for part in (folder / "layer", folder / "layer/opt"):
            part.mkdir()
            os.chown(part, confined.root_id, confined.root_id)
        (folder / "layer/opt").chmod(0o777)
        root = replace(template.root, lowers=(folder / "layer", *template.root.lowers))
        with RootSession(root, context, confined) as session:
            yield session


def sh(session: RootSession, script: str, *binds: Bind) -> Outcome:
    return session.run(["sh", "-euc", script], binds=binds).outcome


def test_commands_of_one_session_find_each_others_files(settings: Settings, target: Target, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_text("given")
    with opened(settings, target, tmp_path / "a") as (session, context):
        with session.phase("first"):
            assert sh(session, "echo 1 > /builddir/a; echo 2 > /tmp/b; echo 3 > /builddir/results/c") is (
                Outcome.SUCCEEDED
            )
        with session.phase("second"):
            bind = Bind(path=given, inside="/builddir/in/given")
            script = "cat /builddir/a /tmp/b /builddir/results/c /builddir/in/given; exit 7"
            done = session.run(["sh", "-c", script], binds=[bind])
        assert (done.outcome, done.completed.code, done.completed.tail) == (Outcome.FAILED, 7, b"1\n2\n3\ngiven")
        assert sh(session, "true", bind) is Outcome.SUCCEEDED
        assert (session.results / "c").read_text() == "3\n"
        assert [phase.name for phase in context.phases] == ["template", "layer", "first", "second"]
    assert list((tmp_path / "a/work").iterdir()) == []
    with opened(settings, target, tmp_path / "b") as (fresh, _):
        assert sh(fresh, "test ! -e /builddir/a; test ! -e /tmp/b") is Outcome.SUCCEEDED


def test_a_command_leaves_no_process_to_the_next(settings: Settings, target: Target, tmp_path: Path) -> None:
    with opened(settings, target, tmp_path / "a") as (session, _):
        assert sh(session, "sleep 300 > /dev/null 2>&1 &") is Outcome.SUCCEEDED
        done = session.run(["sh", "-c", "cat /proc/[0-9]*/comm"])
    assert b"cat" in done.completed.tail.split()
    assert b"sleep" not in done.completed.tail.split()


@pytest.mark.parametrize(
    "script",
    [
        "mv /builddir/in /builddir/old; ln -s /run/farm /builddir/in",
        "mv /builddir/in /builddir/old; ln -s /oldroot/etc /builddir/in",
        "mv /builddir/in /builddir/old; mkdir /builddir/in; ln -s /builddir/a /builddir/in/given",
        "mv /builddir/in /builddir/old; mkdir -p /builddir/in/given",
        "mv /builddir/in /builddir/old; mkdir /builddir/in; mkfifo /builddir/in/given",
        "mv /builddir/in /builddir/old; : > /builddir/in",
    ],
)
def test_a_command_cannot_put_a_link_where_the_next_one_gets_its_files(
    script: str, settings: Settings, target: Target, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    given.write_text("given")
    with opened(settings, target, tmp_path / "a") as (session, _):
        assert sh(session, script) is Outcome.SUCCEEDED
        with pytest.raises(Ended, match="an earlier command replaced /builddir/in") as ended:
            sh(session, "true", Bind(path=given, inside="/builddir/in/given"))
        assert ended.value.outcome is Outcome.FAILED


def test_a_command_cannot_put_a_link_where_the_root_gets_the_next_ones_files(
    settings: Settings, target: Target, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    given.write_text("given")
    with over_a_layer(settings, target, tmp_path / "a") as session:
        assert sh(session, "ln -s /run/farm /opt/hook") is Outcome.SUCCEEDED
        with pytest.raises(Ended, match="an earlier command replaced /opt/hook in the build root"):
            sh(session, "true", Bind(path=given, inside="/opt/hook/enter"))
        assert sh(session, "cat /opt/tool", Bind(path=given, inside="/opt/tool")) is Outcome.SUCCEEDED


def test_a_session_that_is_stopped_runs_nothing_more(settings: Settings, target: Target, tmp_path: Path) -> None:
    with opened(settings, target, tmp_path / "a") as (session, context):
        assert sh(session, "true") is Outcome.SUCCEEDED
        context.stop.set()
        with pytest.raises(LeaseLost):
            sh(session, "true")
    assert list((tmp_path / "a/work").iterdir()) == []


def test_a_command_that_closes_its_folders_does_not_stop_the_next(
    settings: Settings, target: Target, tmp_path: Path
) -> None:
    """That looked like a sandbox that does not come up, which is trouble of the host."""
    with opened(settings, target, tmp_path) as (session, _):
        assert sh(session, "chmod 000 /builddir/results /builddir/out /builddir") is Outcome.SUCCEEDED
        assert sh(session, "echo > /builddir/results/a") is Outcome.SUCCEEDED

"""The command line: the output and the exit code of each command. A test plays the scheduler and the workers."""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from farm import errors
from farm.broker.leases import Leases
from farm.cli.main import COMMANDS, FarmGroup, app
from farm.errors import OUTCOME_EXIT_CODES, FarmError
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.outcome import Outcome
from farm.model.version import VERSION
from farm.repositories import RepositoryKind, RepositoryName, RepositoryPackage, open_repositories
from farm.targets.load import SHIPPED
from tests.driven_farm import DrivenFarm, driven_farm
from tests.messages import worker_facts
from tests.rpms import BINARY_LEAD, LEAD, make_rpm, sha256
from tests.typed import GIT, Typed


@pytest.fixture
def typed(tmp_path: Path) -> Iterator[Typed]:
    with driven_farm(tmp_path) as driven:
        yield Typed(driven)


# --- the whole --------------------------------------------------------------------------------------------------


def test_exit_codes_are_unique_and_keep_clear_of_the_shells() -> None:
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, FarmError)]
    failures = [code for outcome, code in OUTCOME_EXIT_CODES.items() if not outcome.is_success]
    codes = [one.exit_code for one in classes] + failures
    assert len(codes) == len(set(codes))
    assert len({one.code for one in classes}) == len(classes)
    assert all(0 < code < 126 and code != 2 for code in codes)
    assert set(OUTCOME_EXIT_CODES) == set(Outcome)


def test_the_documentation_has_the_exit_codes_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs/cli.md").read_text()
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, FarmError)]
    for code, name in [(one.exit_code, one.code) for one in classes if one is not errors.LeaseLost]:
        assert f"| {code} | `{name}` |" in text
    for outcome, code in OUTCOME_EXIT_CODES.items():
        assert f"| {code} | `{outcome}` |" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    for flag in ("-h", "--help"):
        result = CliRunner().invoke(app, [command, flag], prog_name="farm")
        assert result.exit_code == 0
        assert f"\n    farm {command}" in result.stdout


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"farm {VERSION}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["build", "--target"],
        ["build", *GIT],
        ["build", *GIT, "-t", "demo", "--timeout", "soon"],
        ["list", "--status", "lost"],
        ["log", "1", "--step", "compile"],
        ["status", "1", "2"],
    ],
)
def test_bad_usage_is_2(words: list[str]) -> None:
    result = CliRunner().invoke(app, words, prog_name="farm")
    assert result.exit_code == 2
    assert "Error: " in result.stderr


# --- asking -----------------------------------------------------------------------------------------------------


def test_a_build_is_enqueued_and_says_what_to_type_next(typed: Typed) -> None:
    said = typed.ok("build", *GIT, "--ref", "v1", "-t", "demo", "-a", "x86_64", "-a", "aarch64", "--with", "tests",
                    "--define", "dist .el9", "--timeout", "60", "--priority", "3",
                    "--limit", "memory=8GiB", "--limit", "log=1G")  # fmt: skip
    assert said.startswith("build 1: hello for demo (x86_64, aarch64)")
    assert "farm log 1 --follow" in said
    build = typed.driven.farm.build(1)
    assert (build.options.with_, build.options.defines, build.options.timeout_s) == (
        ("tests",),
        (("dist", ".el9"),),
        60,
    )
    assert (build.priority, build.owner, build.source.ref) == (3, "ann", "v1")


def test_a_src_rpm_is_enqueued(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "hello-1-1.src.rpm").write_bytes(LEAD)
    assert "hello-1-1 for demo" in typed.ok("build", "--srpm", str(tmp_path / "hello-1-1.src.rpm"), "-t", "demo")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["build", *GIT, "-t", "almalinux-99"], 21, "there is no target 'almalinux-99'; did you mean almalinux-9"),
        (["build", *GIT, "-t", "demo", "-a", "s390x"], 22, "target demo is not built for 's390x'; it has x86_64"),
        (["build", "-t", "demo"], 20, "give either a git repository or a src.rpm"),
        (["build", *GIT, "--srpm", "x", "-t", "demo"], 20, "give either a git repository or a src.rpm"),
        (["build", "--git", "/no/such", "-t", "demo"], 25, "--git '/no/such' does not exist"),
        (["build", "--srpm", "/no/such.src.rpm", "-t", "demo"], 25, "'/no/such.src.rpm' does not exist"),
        (["build", "--srpm", "{binary}", "-t", "demo"], 25, "is a binary RPM"),
        (["build", *GIT, "--ref=--x", "-t", "demo"], 25, "--ref '--x' is not a name that git allows"),
        (["build", *GIT, "-t", "demo", "--define", "dist"], 20, "use 'NAME VALUE'"),
        (["build", *GIT, "-t", "demo", "--with", "a b"], 20, "is not a condition's name"),
        (["build", *GIT, "-t", "demo", "--priority", "5000"], 20, "use -1000 to 1000"),
        (["build", *GIT, "-t", "demo", "--limit", "memory=8GB"], 20, "write memory=512MiB or 8GiB"),
        (["build", *GIT, "-t", "demo", "--timeout", "0"], 20, "use 1 to 604800 seconds"),
        (["status", "99"], 23, "there is no build 99"),
        (["status", "batch:99"], 23, "there is no batch 99"),
        (["status", "hello"], 20, "'hello' is neither a build nor a batch"),
        (["log", "b3"], 20, "'b3' is a batch; this command takes a build"),
        (["log", "99"], 23, "there is no build 99"),
        (["retry", "99"], 23, "there is no build 99"),
        (["cancel", "99"], 23, "there is no build 99"),
        (["artifacts", "99"], 23, "there is no build 99"),
        (["repo", "dmeo"], 21, "did you mean demo"),
        (["repo", "demo", "--arch", "arm"], 22, "is not built for 'arm'"),
    ],
)
def test_each_mistake_has_words_and_a_code(
    typed: Typed, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    (tmp_path / "binary").write_bytes(BINARY_LEAD)
    words = [word.replace("{binary}", str(tmp_path / "binary")) for word in words]
    result = typed(*words)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert typed.driven.farm.builds() == ()


def test_with_json_an_error_is_a_document_too(typed: Typed) -> None:
    result = typed("status", "99", "--json")
    assert result.exit_code == 23
    document = json.loads(result.stdout)
    assert (document["format"], document["error"]["code"]) == (1, "not-found")
    assert document["error"]["message"] in result.stderr


def test_without_a_farm_every_command_that_needs_one_says_how_to_start_it(tmp_path: Path) -> None:
    for words in (["build", *GIT, "-t", "demo"], ["status"], ["list"], ["log", "1"], ["workers"], ["repo", "demo"]):
        result = CliRunner().invoke(app, words, env={"FARM_DATA": str(tmp_path)})
        assert result.exit_code == 28, words
        assert f"the farm is not running for data directory {tmp_path}; start it with `farm up`" in result.stderr


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["list"], env={"FARM_DATA": str(tmp_path), "FARM_DATAA": "x"})
    assert (result.exit_code, "FARM_DATAA is not a setting" in result.stderr) == (27, True)


def test_a_file_that_is_not_a_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "farm.db").write_bytes(b"this is no database at all" * 100)
    result = CliRunner().invoke(app, ["list"], env={"FARM_DATA": str(tmp_path)})
    assert (result.exit_code, result.stderr.count("\n")) == (28, 1)
    assert "file is not a database" in result.stderr


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyError("x\x1b"), 1, "error: unexpected KeyError: 'x\\x1b'; FARM_LOG_LEVEL=DEBUG shows the traceback"),
        (KeyboardInterrupt(), 130, ""),
        (UnicodeEncodeError("utf-8", "/a\udcff", 2, 3, "x"), 20, "error: '/a\\udcff' is not UTF-8; rename it, or give"),
        (errors.StoreTrouble("the disk\nis gone"), 45, "error: the disk\\nis gone\n"),
    ],
)
def test_whatever_a_command_raises_becomes_one_line_and_a_code(raised: BaseException, code: int, said: str) -> None:
    one = typer.Typer(cls=FarmGroup, pretty_exceptions_enable=False, rich_markup_mode=None)

    @one.command()
    def breaks() -> None:
        raise raised

    @one.command()
    def other() -> None:
        """Two commands make a group."""

    result = CliRunner().invoke(one, ["breaks"])
    assert (result.exit_code, result.stderr.startswith(said), result.stderr.count("\n")) == (code, True, bool(said))
    traced = CliRunner().invoke(one, ["breaks"], env={"FARM_LOG_LEVEL": "DEBUG"})
    assert ("Traceback" in traced.stderr) == bool(said)


# --- waiting ----------------------------------------------------------------------------------------------------


def _while_waiting(typed: Typed, words: list[str], play: list[str]) -> Result:
    """Types a command that waits, and meanwhile does to build 1 what `play` says."""

    def work() -> None:
        driven = typed.driven
        deadline = threading.Event()
        while not driven.farm.builds():
            assert not deadline.wait(0.01)
        driven.to_build(1)
        if "fail" in play:
            driven.start("1.build.x86_64.1")
            driven.fail("1.build.x86_64.1", "%build failed: no \x1b[31mluck")
        elif "cancel" in play:
            driven.farm.cancel(1)
        elif "unresolvable" in play:
            driven.fail("1.build.x86_64.1", "nothing provides x", outcome=Outcome.UNRESOLVABLE)
        else:
            names = ["hello-1-1.x86_64", *(f"hello-{n:02}-1-1.x86_64" for n in range(30 if "many" in play else 0))]
            rpms = [driven.stored(f"{one}.rpm", b"x", kind=ArtifactKind.RPM, identity=one) for one in names]
            driven.succeed("1.build.x86_64.1", files=tuple(rpms))
            driven.succeed("1.upload.x86_64.1")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        return typed(*words)
    finally:
        thread.join()


WAIT = ["build", *GIT, "-t", "demo", "-a", "x86_64", "--wait"]


def test_waiting_for_success_ends_with_how_to_install(typed: Typed) -> None:
    result = _while_waiting(typed, WAIT, ["succeed"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "build 1"
    assert any(line.startswith("1 hello build x86_64 succeeded in") for line in lines)
    assert "  packages     hello-1-1.x86_64.rpm" in lines
    assert any(line.startswith("  install      dnf --repofrompath=farm-demo,file:///") for line in lines)


def test_a_build_of_many_packages_shows_some_and_their_number(typed: Typed) -> None:
    lines = _while_waiting(typed, WAIT, ["many"]).stdout.splitlines()
    assert len([line for line in lines if line.endswith(".x86_64.rpm")]) == 20
    assert f"{' ' * 15}… and 11 more; `farm artifacts 1` lists them all" in lines


@pytest.mark.parametrize(("play", "code"), [("fail", 10), ("unresolvable", 11), ("cancel", 15)])
def test_the_exit_code_of_wait_says_how_it_ended(typed: Typed, play: str, code: int) -> None:
    result = _while_waiting(typed, WAIT, [play])
    assert result.exit_code == code, result.output


def test_a_failed_build_shows_why_and_what_to_type(typed: Typed) -> None:
    said = _while_waiting(typed, WAIT, ["fail"]).stdout
    assert "%build failed: no \\x1b[31mluck" in said
    assert "\x1b" not in said
    assert "│ make: *** [all] Error 2" in said
    assert "farm log 1 --step build --arch x86_64" in said
    assert "farm retry 1" in said


def test_waiting_with_json_prints_one_document_at_the_end(typed: Typed) -> None:
    result = _while_waiting(typed, [*WAIT, "--json"], ["fail"])
    assert (result.exit_code, json.loads(result.stdout)["build"]["outcome"]) == (10, "failed")


# --- looking ----------------------------------------------------------------------------------------------------


def test_status_of_a_build_shows_its_steps_and_why_they_wait(typed: Typed) -> None:
    typed.build("--with", "tests")
    said = typed.ok("status", "1")
    assert "waits for fetch" in said
    assert "--with tests" in said
    assert re.search(r"asked +\d+ s ago by ann, in batch:1", said)
    assert typed.ok("status", "build:1").split("asked")[0].split("s\n")[1:] == said.split("asked")[0].split("s\n")[1:]


def test_status_of_a_build_shows_the_limits_that_are_not_the_targets(typed: Typed) -> None:
    typed.build("--limit", "memory=8GiB", "--limit", "silence=10min", "--timeout", "3600")
    said = " ".join(typed.ok("status", "1").split())
    assert "--timeout 3600 --limit silence=10min --limit memory=8GiB" in said
    assert "limits wall=1h (the target's is 30min), memory=8GiB (the target's is 4GiB)" in said


def test_status_of_a_build_shows_the_limits_of_its_package(typed: Typed) -> None:
    folder = typed.driven.settings.data / "targets"
    folder.mkdir()
    own = '[[package_limits]]\npackages = ["hel*"]\nprocesses = 99\n'
    (folder / "demo.toml").write_text((SHIPPED / "demo.toml").read_text() + "\n\n" + own)
    typed.build()
    said = typed("status", "1", FARM_TARGETS=str(folder)).stdout
    assert "processes=99 (the target's is 2048)" in " ".join(said.split())


def test_status_of_a_batch_counts_its_builds(typed: Typed) -> None:
    request = typed.driven.farm.request(git=GIT[1], target="demo")
    typed.driven.farm.enqueue_many([request, request]).builds[0].cancel()
    for name in ("batch:1", "b1"):
        assert "0 of 2 succeeded, 1 ended otherwise, 1 to go" in typed.ok("status", name)


def test_status_of_the_farm_shows_queues_running_and_ended_builds(typed: Typed) -> None:
    typed.driven.finish(typed.build())
    typed.build()
    leases = Leases(typed.driven.settings)
    leases.announce(worker_facts("source@one", version=VERSION, unfit="no \x1b[31mroot"))
    leases.close()
    said = typed.ok("status")
    (queue,) = [line.split() for line in said.splitlines() if line.startswith("source")]
    assert queue == ["source", "0", "0", "1", "no", "worker:", "no", r"\x1b[31mroot"]
    assert said.index("going on") < said.index("last finished")


def test_status_counts_the_slots_of_a_publish_worker_on_a_host_without_build_roots(typed: Typed) -> None:
    leases = Leases(typed.driven.settings)
    leases.announce(worker_facts("publish@one", version=VERSION, unfit="not root"))
    leases.close()
    (queue,) = [line.split() for line in typed.ok("status").splitlines() if line.startswith("publish")]
    assert queue == ["publish", "2", "0", "0"]
    assert "not root" not in typed.ok("workers")


def test_status_of_a_stopped_farm_shows_known_facts_and_exits_28(tmp_path: Path) -> None:
    with driven_farm(tmp_path, with_redis=False) as driven:
        result = Typed(driven)("status")
    assert result.exit_code == 28
    assert "no builds yet" in result.stdout
    assert "start it with `farm up`" in result.stderr


def test_list_chooses_builds(typed: Typed) -> None:
    assert typed.ok("list").startswith("no builds; ")
    typed.build()
    typed.driven.farm.cancel(typed.build())
    assert [line.split()[0] for line in typed.ok("list").splitlines()] == ["build", "2", "1"]
    assert [line.split()[0] for line in typed.ok("list", "--outcome", "cancelled").splitlines()] == ["build", "2"]
    assert typed.ok("list", "--outcome", "failed") == "no builds like that\n"
    result = typed("list", "--limit", "1")
    assert "the newest 1; --limit shows more" in result.stderr


def test_nothing_that_a_recipe_says_reaches_the_terminal_as_it_is(typed: Typed) -> None:
    number = typed.build()
    typed.driven.to_build(number)
    evil = "\x1b]0;owned\x07 [red]x[/red] :smile: \u202e\n\r\x9b2J"
    typed.driven.fail(f"{number}.build.x86_64.1", evil, log=evil.encode())
    for words in (["status"], ["status", "1"], ["list"]):
        said = typed.ok(*words)
        assert "\x1b" not in said
        assert "\x9b" not in said
        assert "\u202e" not in said
        assert "\r" not in said
        assert "\\x1b]0;owned\\x07 [red]x[/red] :smile: \\u202e" in said


# --- logs -------------------------------------------------------------------------------------------------------


def test_a_log_goes_into_a_pipe_byte_by_byte(typed: Typed) -> None:
    typed.build()
    typed.driven.to_build(1)
    typed.driven.fail("1.build.x86_64.1", log=b"\xff\x1b[31m\r\n\0")
    assert typed("log", "1").stdout_bytes == b"\xff\x1b[31m\r\n\0"
    assert typed("log", "1", "--step", "srpm").stdout_bytes == b"all is well\n"
    assert typed("log", "1", "--follow").stdout_bytes == b"\xff\x1b[31m\r\n\0"


def test_timestamps_are_put_before_lines(typed: Typed) -> None:
    typed.build()
    typed.driven.to_build(1)
    times = typed.driven.stored("build.log.times.json", b"[[0, 0], [1500, 4]]", kind=ArtifactKind.LOG)
    typed.driven.succeed("1.build.x86_64.1", b"one\ntwo\nthree", files=(times,))
    assert typed.ok("log", "1", "--timestamps") == "    0.000  one\n    1.500  two\n    1.500  three"


def test_missing_timestamps_are_said_to_be_missing(typed: Typed) -> None:
    typed.driven.finish(typed.build())
    result = typed("log", "1", "--timestamps")
    assert (result.exit_code, result.stdout) == (0, "compiling\ndone\n")
    assert "has no timestamps" in result.stderr


def test_following_shows_one_step_after_the_other_until_the_build_is_over(typed: Typed) -> None:
    typed.build()
    typed.driven.send()

    def work() -> None:
        typed.driven.succeed("1.fetch.1", b"fetching\n")
        typed.driven.succeed("1.srpm.1", b"packing\n")
        typed.driven.send()
        typed.driven.fail("1.build.x86_64.1", log=b"compiling\n")

    thread = threading.Thread(target=work)
    thread.start()
    result = typed("log", "1", "--follow")
    thread.join()
    assert "compiling\n" in result.stdout
    assert result.stdout in "fetching\npacking\ncompiling\n"
    assert "==> build x86_64, attempt 1 <==" in result.stderr or result.stdout == "compiling\n"


# --- changing ---------------------------------------------------------------------------------------------------


def test_cancel_and_retry_say_what_they_did(typed: Typed) -> None:
    typed.build()
    assert typed("retry", "1").exit_code == 24
    assert "build 1 (hello) is cancelled" in typed.ok("cancel", "1")
    result = typed("cancel", "1")
    assert (result.exit_code, "over already: cancelled" in result.stderr) == (24, True)
    assert typed.ok("retry", "1").startswith("build 1: fetch again")


# --- results ----------------------------------------------------------------------------------------------------


def test_artifacts_are_listed_and_downloaded(typed: Typed, tmp_path: Path) -> None:
    typed.build()
    assert "has stored no files yet" in typed.ok("artifacts", "1")
    typed.driven.finish(1)
    assert ["build", "x86_64", "rpm", "9", "B", "hello-1-1.x86_64.rpm"] in [
        line.split() for line in typed.ok("artifacts", "1").splitlines()
    ]
    into = tmp_path / "r"
    assert str(into / "hello-1-1.x86_64.rpm") in typed.ok("artifacts", "1", "--download", str(into)).splitlines()
    (into / "srpm.log").write_text("mine")
    result = typed("artifacts", "1", "--download", str(into))
    assert (result.exit_code, "exists with other content" in result.stderr) == (24, True)
    typed.ok("artifacts", "1", "--download", str(into), "--overwrite")
    (tmp_path / "file").touch()
    result = typed("artifacts", "1", "--download", str(tmp_path / "file"))
    assert (result.exit_code, "cannot be written" in result.stderr) == (20, True)


def test_repo_shows_a_file_that_can_be_used_as_it_is(typed: Typed) -> None:
    said = typed.ok("repo", "demo", "--arch", "aarch64")
    assert "[farm-demo]\n" in said
    assert "baseurl=file:///" in said
    assert "dnf --repofrompath=farm-demo,file:///" in said


def publish(driven: DrivenFarm, tmp_path: Path, *names: str) -> None:
    """A version of demo's repository for aarch64 each."""
    name = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.AARCH64)
    for package in names:
        path = make_rpm(tmp_path, package)
        given = RepositoryPackage(path=path, sha256=sha256(path), filename=path.name)
        open_repositories(driven.settings).add(name, [given])


def test_repo_show_is_for_targets_that_are_called_like_a_command(typed: Typed) -> None:
    assert typed.ok("repo", "show", "demo") == typed.ok("repo", "demo")
    assert typed.ok("repo", "--arch", "aarch64", "demo") == typed.ok("repo", "demo", "--arch", "aarch64")
    result = typed("repo", "show", "versions")
    assert (result.exit_code, "there is no target 'versions'" in result.stderr) == (21, True)


def test_the_versions_of_a_repository_are_listed(typed: Typed, tmp_path: Path) -> None:
    publish(typed.driven, tmp_path, "one", "two")
    head, *rows = typed.ok("repo", "versions", "demo", "-a", "aarch64").splitlines()
    assert head.split() == ["version", "published", "packages", "url"]
    assert [row.split()[0] for row in rows] == ["2", "1", "0"]
    assert rows[0].split()[1] == "current"
    assert rows[0].strip().endswith("/demo/aarch64/os/versions/2/")


def test_a_rollback_says_what_it_did_and_how_to_undo_it(typed: Typed, tmp_path: Path) -> None:
    publish(typed.driven, tmp_path, "one", "two")
    words = ("repo", "rollback", "demo", "-a", "aarch64", "--to")
    said = typed.ok(*words, "1", "--yes")
    assert said.startswith("demo/aarch64/os: version 3 has what version 1 had, 1 package; version 2 had 2 packages\n")
    undo = said.splitlines()[1].split("undo")[1].split()
    assert undo[:3] == ["farm", "repo", "rollback"]
    assert "nothing was changed" in typed.ok(*words, "1", "--yes")
    assert "version 4 has what version 2 had, 2 packages" in typed.ok(*undo[1:])


def test_a_rollback_is_not_done_unasked(typed: Typed, tmp_path: Path) -> None:
    publish(typed.driven, tmp_path, "one", "two")
    result = typed("repo", "rollback", "demo", "-a", "aarch64", "--to", "1")
    assert (result.exit_code, "changes what clients get; add --yes" in result.stderr) == (20, True)
    result = typed("repo", "rollback", "demo", "-a", "aarch64", "--to", "9")
    assert (result.exit_code, "has no version 9; kept are 2, 1, 0" in result.stderr) == (23, True)
    assert typed.driven.farm.repository_versions("demo", "aarch64")[0].number == 2


def test_a_back_end_that_works_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    env = {"FARM_DATA": str(tmp_path / "data")}
    result = CliRunner().invoke(app, ["repo", "check"], env=env)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "createrepo_c" in result.stdout
    (tmp_path / "data").touch()
    result = CliRunner().invoke(app, ["repo", "check"], env=env)
    assert result.exit_code == 46
    assert "is not a folder; move it away" in result.stderr


def test_logs_that_go_up_after_a_failure_are_told_in_words(typed: Typed) -> None:
    typed.build()
    typed.driven.around = replace(typed.driven.around, uploads_logs=True)
    typed.driven.to_build(1)
    typed.driven.fail("1.build.x86_64.1")
    said = typed.ok("status", "1")
    assert "logs and records only: build x86_64 failed; " in said
    typed.driven.send()
    typed.driven.fail("1.logs.x86_64.1", "no luck")
    assert "logs and records only, not published: no luck" in typed.ok("status", "1")
    assert typed.driven.farm.build(1).outcome is Outcome.FAILED
    assert typed.ok("log", "1").startswith("cc -c a.c")


# --- around -----------------------------------------------------------------------------------------------------


def test_workers_are_listed_with_their_problems(typed: Typed) -> None:
    assert typed.ok("workers").startswith("no workers; ")
    leases = Leases(typed.driven.settings)
    leases.announce(worker_facts("source@one", version=VERSION, unfit="no \x1b[31mroot"))
    leases.close()
    said = typed.ok("workers")
    assert "source@one" in said
    assert "no \\x1b[31mroot" in said


def test_targets_lists_the_good_and_names_the_broken(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("arches = []\n")
    env = {"FARM_DATA": str(tmp_path), "FARM_TARGETS": str(tmp_path)}
    result = CliRunner().invoke(app, ["targets"], env=env)
    assert result.exit_code == 26
    assert "almalinux-9" in result.stdout
    assert str(tmp_path / "mine.toml") in result.stderr


def test_config_shows_where_each_setting_comes_from_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql+psycopg://farm:secret@db/farm")
    env = {"FARM_DATA": str(tmp_path), "FARM_DATABASE_URL_FILE": str(tmp_path / "url")}
    result = CliRunner().invoke(app, ["config"], env=env)
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert rows["data"] == ["FARM_DATA", str(tmp_path)]
    assert rows["database_url"] == ["FARM_DATABASE_URL_FILE", "postgresql+psycopg://farm:***@db/farm"]
    assert rows["lease_s"] == ["default", "30"]
    assert "secret" not in result.output


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("farm sta", "status"),
        ("farm build --target alma", "almalinux-9"),
        ("farm build --arch aa", "aarch64"),
        ("farm status 1", "1"),
        ("farm repo de", "demo"),
        ("farm repo ver", "versions"),
        ("farm repo versions de", "demo"),
        ("farm repo demo --ar", "--arch"),
    ],
)
def test_the_shell_completes_commands_targets_arches_and_builds(typed: Typed, line: str, offered: str) -> None:
    typed.build()
    words = {"_FARM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    result = CliRunner().invoke(app, [], env={**typed.driven.env, **words}, prog_name="farm")
    assert offered in result.stdout.split()


def test_completion_without_a_farm_offers_nothing_and_says_nothing(tmp_path: Path) -> None:
    env = {"FARM_DATA": str(tmp_path), "_FARM_COMPLETE": "complete_bash", "COMP_WORDS": "farm log ", "COMP_CWORD": "2"}
    result = CliRunner().invoke(app, [], env=env, prog_name="farm")
    assert (result.stdout.strip(), result.stderr) == ("", "")

"""`farm try` and `farm shell` as their users type them: real steps in real roots, on a terminal and off."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farm import Farm
from farm.artifacts import open_store
from farm.cli.local import _recorded
from farm.cli.main import app
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.build import Build
from farm.model.local import ShellRequest
from farm.model.outcome import Outcome
from farm.model.target import RepositorySource
from farm.targets.load import find_target
from farm.up.embedded import running_farm
from tests.leftovers import inside
from tests.packages import commit_all, make_git, make_srpm
from tests.waiting import until
from workers.local.shell import shell

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="build roots need root")]
FARM = [sys.executable, "-m", "farm.cli.main"]
ROOT = Path(__file__).parents[2]
WITHIN_S = 120
PERSON = 4711


@dataclass(frozen=True, kw_only=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(frozen=True, kw_only=True)
class Person:
    settings: Settings
    folder: Path

    def env(self, **more: str) -> dict[str, str]:
        data = {"FARM_DATA": str(self.settings.data), "FARM_ALLOW_NETWORKS": "127.0.0.0/8", "FARM_TRY_WARM_S": "0"}
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", **data, **more}

    def types(self, *words: str | Path, given: str = "", **env: str) -> Said:
        done = subprocess.run(
            [*FARM, *map(str, words)],
            cwd=self.folder,
            env=self.env(**env),
            input=given,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Said(code=done.returncode, out=done.stdout, err=done.stderr)

    def is_tidy(self) -> bool:
        work = self.settings.work
        left = [one for one in work.iterdir() if not one.name.startswith("kept-")] if work.is_dir() else []
        return not left and inside(self.settings) == []


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Settings:
    data = tmp_path_factory.mktemp("f")
    (data / "demo").mkdir()
    (data / "demo/distribution").symlink_to(demo_distribution)
    return Settings.from_env({"FARM_DATA": str(data), "FARM_OWNER": "tester", "FARM_KEEP_FAILED": "1"})


@pytest.fixture
def person(settings: Settings, tmp_path: Path) -> Iterator[Person]:
    person = Person(settings=settings, folder=tmp_path)
    yield person
    assert person.is_tidy()


@pytest.fixture(scope="module")
def builds(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Build]:
    """A build that succeeded and one that failed, of a farm that has ended since."""
    folder = tmp_path_factory.mktemp("sources")
    with running_farm(settings, build_slots=1), Farm.connect(settings) as farm:
        handles = {
            name: farm.enqueue(git=make_git(name, folder), target="demo", arches=["x86_64"])
            for name in ("hello-c", "fails-build")
        }
        ended = {name: handle.wait(timeout_s=WITHIN_S) for name, handle in handles.items()}
    assert [one.outcome for one in ended.values()] == [Outcome.SUCCEEDED, Outcome.FAILED]
    return ended


# --- farm try --------------------------------------------------------------------------------------------------------


def test_changes_that_are_not_committed_are_built(person: Person, open_folder: Path) -> None:
    tree = make_git("hello-c", open_folder)
    program = tree / "hello.c"
    program.write_text(program.read_text().replace("int main", "const char *changed = __FILE__;\nint main"))
    recipe = tree / "hello-c.spec"
    recipe.write_text(recipe.read_text().replace("%description", "Source7: new.txt\n%description", 1))
    (tree / "new.txt").write_text("neither tracked nor ignored\n")
    (tree / ".gitignore").write_text("secret*\n")
    (tree / "secret.txt").write_text("ignored\n")
    before = subprocess.run(["git", "status", "--porcelain"], cwd=tree, capture_output=True, check=True).stdout
    for path in (tree, *tree.rglob("*")):
        os.chown(path, PERSON, PERSON, follow_symlinks=False)
    out = tree / "results"
    said = person.types("try", tree, "-t", "demo", "--results", out)
    assert said.code == 0, said.err + said.out
    assert "with changes that are not committed" in said.err
    assert "[farm] build of hello-c for demo" in said.out  # the live log
    assert "hello-c for demo: succeeded in " in said.out
    names = {path.name for path in out.iterdir()}
    assert {"hello-c-1.0-1.demo1.x86_64.rpm", "hello-c-1.0-1.demo1.src.rpm", "build.x86_64.log", "root.json"} <= names
    assert {path.stat().st_uid for path in (out, *out.iterdir())} == {PERSON}
    packed = subprocess.run(
        ["rpm", "-qpl", next(out.glob("*.src.rpm"))], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "new.txt" in packed
    assert "secret.txt" not in packed
    safe = ["-c", "safe.directory=*"]
    after = subprocess.run(["git", *safe, "status", "--porcelain"], cwd=tree, capture_output=True, check=True).stdout
    assert after == before + b"?? results/\n"
    # The results are no part of the tree, so the same files give the same commit.
    again = person.types("try", tree, "-t", "demo", "--results", out, "--quiet")
    assert again.err.splitlines()[0] == said.err.splitlines()[0]
    assert "[farm]" not in again.out


def test_results_that_cannot_be_written_are_said_before_a_step_runs(person: Person) -> None:
    said = person.types("try", make_git("hello-c", person.folder), "-t", "demo", "--results", "/proc/results")
    assert said.code == 20
    assert "--results '/proc/results' cannot be written" in said.err
    assert "fetch" not in said.out + said.err


def test_a_failing_build_has_its_reason_and_exit_code(person: Person) -> None:
    tree = make_git("fails-build", person.folder)
    (tree / "broken.c").write_text('#error "\x1b]0;owned\x07 made today"\n')
    said = person.types("try", tree, "-t", "demo", "-q")
    assert said.code == 10
    assert "made today" in said.out
    assert "\x1b" not in said.out + said.err
    assert (person.folder / "results/build.x86_64.log").is_file()
    assert not list((person.folder / "results").glob("*.x86_64.rpm"))


def test_a_source_package_and_a_plain_folder_are_built_and_old_results_go(person: Person) -> None:
    said = person.types("try", "-t", "demo", "--srpm", make_srpm("hello-c", person.folder), "-q", "--define", "dist .x")
    assert said.code == 0, said.err
    assert (person.folder / "results/hello-c-1.0-1.x.x86_64.rpm").is_file()
    (person.folder / "results/mine.txt").write_text("kept")
    tree = make_git("hello-c", person.folder)
    subprocess.run(["rm", "-r", tree / ".git"], check=True)
    said = person.types("try", tree, "-t", "demo", "-q", "--jobs", "3")
    assert said.code == 0, said.err
    names = {path.name for path in (person.folder / "results").iterdir()}
    assert "mine.txt" in names
    assert "hello-c-1.0-1.x.x86_64.rpm" not in names


def test_tracked_files_that_a_rule_ignores_are_built_and_line_ends_stay(person: Person) -> None:
    tree = make_git("hello-c", person.folder)
    (tree / "forced.txt").write_bytes(b"one\r\ntwo\r\n")
    (tree / ".gitattributes").write_text("* text=auto\n")
    commit_all(tree, "Add a file")
    (tree / ".gitignore").write_text("forced.txt\n")
    recipe = tree / "hello-c.spec"
    recipe.write_text(recipe.read_text().replace("%description", "Source7: forced.txt\n%description", 1))
    assert person.types("try", tree, "-t", "demo", "-q").code == 0
    packed = next((person.folder / "results").glob("*.src.rpm"))
    payload = subprocess.run(["rpm2cpio", packed], capture_output=True, check=True).stdout
    assert b"one\r\ntwo\r\n" in payload


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_build_and_leaves_nothing(person: Person, number: signal.Signals) -> None:
    tree = make_git("never-ends", person.folder)
    with subprocess.Popen(
        [*FARM, "try", str(tree), "-t", "demo", "--keep"],
        cwd=person.folder,
        env=person.env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as trying:
        until(lambda: len(inside(person.settings)) > 2, "the build")
        trying.send_signal(number)
        _, error = trying.communicate(timeout=30)
    assert trying.returncode == 128 + number
    assert b"Traceback" not in error
    assert b"everything that ran was ended" in error


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("try -t nope", 21, "there is no target 'nope'"),
        ("try -t demo -a s390x", 22, "is not built for 's390x'"),
        ("try /no/such/folder -t demo", 25, "'/no/such/folder' cannot be built: No such file"),
        ("try /etc/passwd -t demo", 25, "is not a folder"),
        ("try . -t demo --spec", 2, "--spec"),
        ("shell", 20, "takes a build's number"),
        ("shell 12", 20, "there is no terminal for a shell; give a command"),
        ("shell twelve -- ls", 20, "'twelve' is neither a build nor a batch"),
        ("shell -t nope -- ls", 21, "there is no target 'nope'"),
    ],
)
def test_wrong_input_is_named(person: Person, words: str, code: int, said: str) -> None:
    found = person.types(*words.split())
    assert found.code == code
    assert said in found.err


def test_without_root_the_words_say_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(app, ["try", "-t", "demo"])
    assert done.exit_code == 44
    assert "run `sudo farm try" in done.stderr


# --- farm shell ------------------------------------------------------------------------------------------------------


def test_a_command_sees_the_recorded_packages_and_the_sources(person: Person, builds: dict[str, Build]) -> None:
    good = builds["hello-c"]
    script = "rpm -qa --qf '%{nevra}\\n' | grep -v gpg-pubkey | sort; ls build/SPECS build/SOURCES >&2; exit 7"
    said = person.types("shell", good.id, "--", "sh", "-c", script)
    assert said.code == 7
    root = _record(person.settings, good, "root.json")
    assert said.out.split() == sorted(one["nevra"] for one in root)
    assert "the same as recorded, by digest" in said.err
    assert "hello-c.spec" in said.err
    assert "hello.c" in said.err


def _record(settings: Settings, build: Build, name: str) -> list[dict[str, str]]:
    step = next(one for one in build.steps if one.kind == "build")
    artifact = next(one for one in step.attempts[-1].artifacts if one.name == name)
    with open_store(settings).open(artifact.sha256) as file:
        found: list[dict[str, str]] = json.load(file)
    return found


def test_the_commands_of_the_step_run_again(person: Person, builds: dict[str, Build]) -> None:
    said = person.types("shell", builds["hello-c"].id, "--", "sh", "-c", "sh again.sh > log 2>&1; ls results")
    assert "hello-c-1.0-1.demo1.x86_64.rpm" in said.out
    said = person.types("shell", builds["hello-c"].id, "-s", "srpm", "--", "sh", "-c", "sh again.sh; ls results")
    assert "hello-c-1.0-1.demo1.src.rpm" in said.out
    said = person.types("shell", builds["hello-c"].id, "--", "sh", "again.sh", "-bp")
    assert said.code == 0
    assert "%prep" in said.out + said.err


def test_the_kept_build_folder_is_as_it_was_left_each_time(person: Person, builds: dict[str, Build]) -> None:
    for _ in range(2):
        said = person.types("shell", builds["fails-build"].id, "--", "sh", "-c", "ls build/BUILD/*; rm -r build")
        assert said.code == 0, said.err
        assert "broken.c" in said.out
        assert "/builddir is as the attempt left it" in said.err


def test_standard_input_reaches_the_command(person: Person) -> None:
    assert person.types("shell", "-t", "demo", "--", "cat", given="through\n" * 5000).out == "through\n" * 5000


def test_steps_without_a_root_and_unknown_builds_are_named(person: Person, builds: dict[str, Build]) -> None:
    said = person.types("shell", builds["hello-c"].id, "--step", "upload", "--", "ls")
    assert said.code == 24
    assert "the root of the upload step cannot be made again" in said.err
    assert person.types("shell", "999", "--", "ls").code == 23
    said = person.types("shell", builds["hello-c"].id, "--arch", "aarch64", "--", "ls")
    assert said.code == 23
    assert f"build {builds['hello-c'].id} has no aarch64; it has srpm, build x86_64" in said.err


@contextmanager
def _server() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"from the network")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


#: Speaks to the proxy as curl does: SOCKS 5 with a password.
_FETCH = r"""
exec 3<>/dev/tcp/127.0.0.1/PROXY || exit 9
printf '\x05\x01\x02' >&3; head -c 2 <&3 >/dev/null
printf "\x01\x04farm\x20$SECRET" >&3; head -c 2 <&3 >/dev/null
printf '\x05\x01\x00\x01\x7f\x00\x00\x01\xHIGH\xLOW' >&3; head -c 10 <&3 >/dev/null
printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3
"""


def test_there_is_no_network_unless_asked_for(person: Person) -> None:
    with _server() as port:
        direct = f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo reached"
        said = person.types("shell", "-t", "demo", "--", "bash", "-c", direct)
        assert (said.code, said.out) == (1, "")
        high, low = f"{port >> 8:02x}", f"{port & 255:02x}"
        fetch = _FETCH.replace("HIGH", high).replace("LOW", low).replace("PROXY", "${all_proxy##*:}")
        secret = "SECRET=${all_proxy#*farm:}; SECRET=${SECRET%@*}\n"
        said = person.types("shell", "-t", "demo", "--network", "--", "bash", "-c", secret + fetch)
        assert "NETWORK IS ON" in said.err
        assert "from the network" in said.out, said.err
        # The host's own services are out of reach past the proxy.
        said = person.types("shell", "-t", "demo", "--network", "--", "bash", "-c", direct)
        assert (said.code, said.out) == (1, "")


def test_packages_that_are_gone_are_named(
    person: Person, builds: dict[str, Build], capfd: pytest.CaptureFixture[str]
) -> None:
    request = _recorded(person.settings, builds["hello-c"], None, None)
    root = _record(person.settings, builds["hello-c"], "root.json")
    bash = next(one for one in root if one["nevra"].startswith("bash-"))
    tar = next(one for one in root if one["nevra"].startswith("tar-"))
    older = [
        {"nevra": "bash-0.1-1.x86_64", "digest": bash["digest"]},
        {"nevra": "ghost-1.0-1.noarch", "digest": "00"},
        {"nevra": tar["nevra"], "digest": "11"},
        *(one for one in root if one not in (bash, tar)),
    ]
    code = shell(_with_root(request, older, person), person.settings, threading.Event())
    out, err = capfd.readouterr()
    assert code == 0, err
    assert out == "here\n"
    assert f"bash-0.1-1.x86_64 can no longer be had: the repositories moved on; {bash['nevra']} is in its place" in err
    assert "ghost-1.0-1.noarch can no longer be had: the repositories moved on; no package is in its place" in err
    assert f"{tar['nevra']} has another digest than recorded" in err


def test_a_target_may_have_a_repository_of_the_farm(
    person: Person, builds: dict[str, Build], capfd: pytest.CaptureFixture[str]
) -> None:
    demo = find_target(person.settings, "demo")
    own = RepositorySource(name="own", target="demo", gpgcheck=False)
    target = replace(demo, repositories=(*demo.repositories, own), packages=(*demo.packages, "hello-c"))
    request = ShellRequest(target=target, arch=Arch.X86_64, command=("rpm", "-q", "hello-c"))
    code = shell(request, person.settings, threading.Event())
    out, err = capfd.readouterr()
    assert (code, out) == (0, f"{builds['hello-c'].nevra}\n".replace(".src", ".x86_64")), err


def _with_root(request: ShellRequest, root: list[dict[str, str]], person: Person) -> ShellRequest:
    path = person.folder / "root.json"
    path.write_text(json.dumps(root))
    stored = open_store(person.settings).put(path, name="root.json", kind=ArtifactKind.RECORD)
    artifacts = tuple(
        replace(one, artifact=stored) if one.artifact.name == "root.json" else one for one in request.artifacts
    )
    return replace(request, artifacts=artifacts, command=("echo", "here"))


class _Terminal:
    def __init__(self, person: Person, *words: str) -> None:
        self._primary, secondary = pty.openpty()
        self.process = subprocess.Popen(
            [*FARM, *words],
            cwd=person.folder,
            env=person.env(TERM="xterm"),
            stdin=secondary,
            stdout=secondary,
            stderr=secondary,
            start_new_session=True,
        )
        os.close(secondary)
        self.screen = ""

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(WITHIN_S)
        os.close(self._primary)

    def types(self, text: str) -> None:
        os.write(self._primary, text.encode())

    def until(self, words: str) -> None:
        deadline = time.monotonic() + WITHIN_S
        while words not in self.screen:
            assert time.monotonic() < deadline, self.screen
            if select.select([self._primary], [], [], 0.1)[0]:
                try:
                    self.screen += os.read(self._primary, 65536).decode(errors="replace")
                except OSError:
                    break
        assert words in self.screen, self.screen


@pytest.fixture
def terminals(person: Person) -> Iterator[Callable[..., _Terminal]]:
    made: list[_Terminal] = []

    def make(*words: str) -> _Terminal:
        made.append(_Terminal(person, *words))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_a_terminal_has_job_control_and_no_way_to_type(
    terminals: Callable[..., _Terminal], builds: dict[str, Build]
) -> None:
    terminal = terminals("shell", str(builds["hello-c"].id))
    terminal.until("ends the shell")
    terminal.types("echo sum=$((40 + 2)); id -u\n")
    terminal.until("sum=42")
    terminal.until("60990")
    terminal.types("sleep 100\n")
    time.sleep(0.5)
    terminal.types("\x1a")
    terminal.until("Stopped")
    terminal.types("fg\n")
    time.sleep(0.5)
    terminal.types("\x03")
    terminal.types("perl -e '$x = chr(33); print ioctl(STDIN, 0x5412, $x) ? q(stuffed) : q(re).q(fused)'\n")
    terminal.until("refused")
    assert "no job control" not in terminal.screen
    terminal.types("exit 5\n")
    assert terminal.process.wait(WITHIN_S) == 5


def test_after_a_failure_try_opens_a_shell(person: Person, terminals: Callable[..., _Terminal]) -> None:
    kept = len(list(person.settings.work.glob("kept-*")))
    terminal = terminals("try", str(make_git("fails-build", person.folder)), "-t", "demo", "--shell")
    terminal.until("ends the shell")
    terminal.types("ls build/BUILD/*; exit\n")
    terminal.until("broken.c")
    assert terminal.process.wait(WITHIN_S) == 10
    assert len(list(person.settings.work.glob("kept-*"))) == kept


def test_a_closed_terminal_ends_the_shell(person: Person) -> None:
    terminal = _Terminal(person, "shell", "-t", "demo")
    terminal.until("ends the shell")
    os.close(terminal._primary)
    terminal.process.wait(WITHIN_S)

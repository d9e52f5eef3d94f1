"""Specs that attack the fetch step while rpm reads them: they run in a root, within limits, and forge nothing new."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from farm.model.arch import Arch
from farm.model.outcome import Outcome
from farm.model.target import Limits
from tests.fetching import Desk, http_server, repository, spec
from workers.core.context import Ended
from workers.formats.rpm import asking

pytestmark = pytest.mark.live

_ANSWER = "/builddir/out/sources"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path / "desk")


def _end(desk: Desk, tmp_path: Path, text: bytes) -> tuple[Outcome, str]:
    repo = repository(tmp_path / "repo", {"hello.spec": text, "secret": b"not a source"})
    with pytest.raises(Ended) as ended:
        desk.git(repo)
    return ended.value.outcome, ended.value.reason


def _hex(text: str) -> str:
    return text.encode().hex()


@pytest.mark.parametrize("loop", ["%(while :; do :; done)", "%{lua:while true do end}", "%(sleep 1000)"])
def test_a_spec_that_never_ends_is_ended(desk: Desk, tmp_path: Path, loop: str) -> None:
    began = time.monotonic()
    outcome, reason = _end(replace(desk, wall_s=4), tmp_path, spec(head=loop))
    assert (outcome, reason.startswith("reading the spec did not end within")) == (Outcome.TIMED_OUT, True)
    assert time.monotonic() - began < 60


def test_a_spec_that_takes_too_long_is_told_the_limit_of_its_reading(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ASK_S", 2.0)
    outcome, reason = _end(desk, tmp_path, spec(head="%(sleep 1000)"))
    assert (outcome, reason) == (Outcome.TIMED_OUT, "reading the spec did not end within its limit of 2 s")


def test_a_flood_of_output_is_ended(desk: Desk, tmp_path: Path) -> None:
    outcome, reason = _end(desk, tmp_path, spec(head="%(head -c 1000000000 /dev/zero | tr '\\0' x >&2)"))
    assert (outcome, "flooded the log" in reason) == (Outcome.OVER_LIMIT, True)


def test_much_memory_is_ended(tmp_path: Path) -> None:
    desk = Desk(folder=tmp_path / "desk", limits=Limits(memory_bytes=128 * 2**20))
    outcome, reason = _end(desk, tmp_path, spec(head='%{lua:local t = "x" while true do t = t .. t end}'))
    assert outcome is Outcome.OVER_LIMIT or "not enough memory" in reason, reason


def test_a_flood_of_answers_is_refused(desk: Desk, tmp_path: Path) -> None:
    outcome, reason = _end(desk, tmp_path, spec(head='%{lua:io.stdout:write(string.rep("x", 40000000))}'))
    assert (outcome, "gave no list of its sources" in reason) == (Outcome.FAILED, True)


def _at_the_end(lua: str) -> bytes:
    """A spec that writes its own answer: it leaves the farm's without a way to write."""
    return spec(
        head=f"%{{lua:\n{lua}\nio.open = function() return {{write = function() end, close = function() end}} end}}"
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"SOURCE 0 {_hex('/x/passwd')} {_hex('file:///etc/passwd')}", "is at a URL that is neither http nor https"),
        (f"SOURCE 0 {_hex('/x/..')} {_hex('http://127.0.0.1/..')}", "does not end with a name that a file can have"),
        (f"SOURCE 0 {_hex('a' * 300)} {_hex('http://127.0.0.1/x')}", "is longer than a file's can be"),
        (f"SOURCE 0 {_hex('/etc/passwd')} {_hex('../../../../etc/passwd')}", "is not in the tree and is no URL"),
        ("SOURCE 0 zz zz", "does not parse"),
        ("SOURCE 0", "does not parse"),
    ],
    ids=["scheme", "dots", "long", "path", "no-hex", "short"],
)
def test_a_forged_answer_is_checked_like_any_other(desk: Desk, tmp_path: Path, line: str, words: str) -> None:
    lua = f'local f = io.open("{_ANSWER}", "w") f:write("{line}\\n") f:close()'
    outcome, reason = _end(desk, tmp_path, _at_the_end(lua))
    assert outcome is Outcome.FAILED
    assert words in reason


def test_an_answer_of_very_many_sources_is_refused(desk: Desk, tmp_path: Path) -> None:
    lua = f'local f = io.open("{_ANSWER}", "w") f:write(string.rep("SOURCE 0 61 61\\n", 200000)) f:close()'
    assert _end(desk, tmp_path, _at_the_end(lua)) == (Outcome.OVER_LIMIT, "the spec names more than 100000 sources")


@pytest.mark.parametrize("text", ["\\n", "\\r", "\\r\\n"])
def test_an_answer_of_very_many_lines_is_refused(desk: Desk, tmp_path: Path, text: str) -> None:
    lua = f'local f = io.open("{_ANSWER}", "w") f:write(string.rep("{text}", 8000000)) f:close()'
    assert _end(desk, tmp_path, _at_the_end(lua)) == (Outcome.OVER_LIMIT, "the spec names more than 100000 sources")


def test_very_many_sources_are_looked_at_in_time(desk: Desk, tmp_path: Path) -> None:
    """A repeated look at all sources for each of them would take a quarter of an hour."""
    line = f"SOURCE %d {_hex('/x/secret')} {_hex('secret')}\\n"
    lua = f'local f = io.open("{_ANSWER}", "w") for n = 1, 99999 do f:write(string.format("{line}", n)) end f:close()'
    repo = repository(tmp_path / "repo", {"hello.spec": _at_the_end(lua), "secret": b"a file of the tree"})
    began = time.process_time()
    assert set(desk.content(desk.git(repo))) == {"hello.spec", "secret"}
    assert time.process_time() - began < 60


def test_the_sources_of_a_tree_are_counted_together(tmp_path: Path) -> None:
    """Each is taken by itself, and is within the limit by itself; zeros are small in git."""
    desk = Desk(folder=tmp_path / "desk", limits=Limits(disk_bytes=8 * 2**20))
    files = {f"folder/{number}": bytes(3 * 2**20) for number in range(6)}
    named = {"hello.spec": spec(sources=tuple(files)), **files}
    repo = repository(tmp_path / "repo", named)
    with pytest.raises(Ended) as ended:
        desk.git(repo)
    assert (ended.value.outcome, "the step's disk limit" in ended.value.reason) == (Outcome.OVER_LIMIT, True)
    written = sum(path.stat().st_size for path in (desk.folder / "work-1").rglob("tree-*.tar"))
    assert 0 < written <= 8 * 2**20


def test_a_folder_with_the_name_of_a_file_is_counted(tmp_path: Path) -> None:
    """git fetches a tree that has a name twice, and archives both."""
    desk = Desk(folder=tmp_path / "desk", limits=Limits(disk_bytes=8 * 2**20))
    repo = repository(tmp_path / "repo", {"zeros": bytes(3 * 2**20), "small": b"small"})

    def made(kind: str, content: bytes) -> bytes:
        argv = ["git", "hash-object", "-w", "--literally", "-t", kind, "--stdin"]
        return bytes.fromhex(
            subprocess.run(argv, cwd=repo, input=content, capture_output=True, check=True).stdout.decode()
        )

    blob = made("blob", b"small")
    folder = made("tree", b"100644 zeros\0" + made("blob", bytes(3 * 2**20)))
    names = [f"f{number}".encode() for number in range(6)]
    text = made("blob", spec(sources=tuple(f"folder/{name.decode()}" for name in names)))
    twice = b"".join(b"40000 %s\0%s100644 %s\0%s" % (name, folder, name, blob) for name in names)
    root = made("tree", b"40000 folder\0" + made("tree", twice) + b"100644 hello.spec\0" + text)
    done = subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@x", "commit-tree", root.hex(), "-m", "x"],
        cwd=repo,
        capture_output=True,
        check=True,
        text=True,
    )
    subprocess.run(["git", "update-ref", "refs/heads/main", done.stdout.strip()], cwd=repo, check=True)
    with pytest.raises(Ended) as ended:
        desk.git(repo)
    assert (ended.value.outcome, "the step's disk limit" in ended.value.reason) == (Outcome.OVER_LIMIT, True)
    written = sum(path.stat().st_size for path in (desk.folder / "work-1").rglob("tree-*.tar"))
    assert 0 < written <= 12 * 2**20


def test_a_tree_is_packed_for_no_more_names_than_the_disk_limit_allows(tmp_path: Path) -> None:
    """Each answer, for another arch or in another round, may have another name and version."""
    desk = Desk(folder=tmp_path / "desk", limits=Limits(disk_bytes=8 * 2**20), arches=tuple(Arch))
    text = spec("%{_target_cpu}", sources=("%{name}-1.0.tar",))
    repo = repository(tmp_path / "repo", {"hello.spec": text, "folder/zeros": bytes(3 * 2**20)})
    with pytest.raises(Ended) as ended:
        desk.git(repo)
    assert ended.value.outcome is Outcome.OVER_LIMIT
    made = [path.name for path in (desk.folder / "work-1/tarball").iterdir()]
    assert len(made) <= 2


@pytest.mark.parametrize("made", ["ln -s /etc/passwd", "mkfifo", "mkdir"])
def test_an_answer_that_is_no_file_is_not_read(desk: Desk, tmp_path: Path, made: str) -> None:
    outcome, reason = _end(desk, tmp_path, _at_the_end(f'rpm.expand("%(rm -rf {_ANSWER}; {made} {_ANSWER})")'))
    assert (outcome, "gave no list of its sources" in reason) == (Outcome.FAILED, True)


def test_printed_answers_are_no_answers(desk: Desk, tmp_path: Path) -> None:
    head = '%{lua:io.stdout:write("\\nfarm:header\\nNAME x\\nVERSION y\\nNOSOURCE 0\\n")}\n%{echo:SOURCE 0 61 61}'
    repo = repository(tmp_path / "repo", {"hello.spec": spec(head=head)})
    assert set(desk.content(desk.git(repo))) == {"hello.spec"}


def test_the_root_holds_nothing_of_the_host(desk: Desk, tmp_path: Path) -> None:
    """No network, no credential, no path of the host, and a file that the spec writes is gone with the root."""
    with http_server() as server:
        port = server.port
        shell = (
            "id -u; env; ls -d /root/* /srv/* /home/*; touch /builddir/in/new /etc/new /tmp/new-of-spec; "
            f"(: > /dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo REACHED; cat /builddir/in/secret"
        )
        lua = 'io.open("/tmp/of-lua", "w"):write("x") io.open("/builddir/of-lua", "w"):write("x")'
        text = spec(head=f"%(exec >&2; bash -c '{shell}')\n%{{lua:{lua}}}")
        repo = repository(tmp_path / "repo", {"hello.spec": text, "secret": b"a file of the tree"})
        desk.git(repo)
        assert server.seen == []
    assert "REACHED" not in desk.log
    assert "a file of the tree" in desk.log
    assert "60990" in desk.log
    assert "FARM_" not in desk.log.replace("FARM_ANSWER", "")
    assert not Path("/tmp/of-lua").exists()
    assert not Path("/tmp/new-of-spec").exists()
    left = [path.name for path in (desk.folder / "work-1").rglob("*") if path.name in ("of-lua", "new", "new-of-spec")]
    assert left == []

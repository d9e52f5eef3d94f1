"""Recipes and scriptlets cannot reach the host: real sessions and installations run a program that tries everything."""

import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from farm.config import Settings
from farm.errors import BadSettings, HostUnfit
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from farm.model.target import EngineName, Target
from tests.attacks.test_installations import Layers
from tests.contexts import demo_target, step_context
from tests.waiting import until
from workers.core.context import StepContext
from workers.formats.rpm.native import native_roots
from workers.isolation import confine
from workers.isolation.confine import confinement, host_problem
from workers.isolation.sandbox import BUILD_UID, ID_COUNT, Bind, build_user_ids
from workers.roots.root import Root
from workers.roots.session import Ran, RootSession

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="the native engine mounts overlays and needs root"),
]

# Numbers of linux/keyctl.h and, for x86_64, of the system calls.
_ADD_KEY, _KEYCTL, _JOIN_SESSION_KEYRING, _SESSION_KEYRING = 248, 250, 1, -3
_FAMILIES = {"1", "2", "10", "16"}  # UNIX, INET, INET6, NETLINK
_MAY_SUCCEED = {"family-1", "family-2", "family-10", "netlink-0"}
_REFUSED_BY_FILTER = {
    "keyctl": "ENOSYS",
    "add_key": "ENOSYS",
    "request_key": "ENOSYS",
    "bpf": "ENOSYS",
    "perf": "ENOSYS",
    "userfaultfd": "ENOSYS",
    "io_uring": "ENOSYS",
    "tiocsti": "EPERM",
    "high-tiocsti": "EPERM",
    "unshare-user": "EPERM",
    "clone-user": "EPERM",
    "clone3-user": "ENOSYS",
    "high-family": "EAFNOSUPPORT",
}


def compiled(name: str, folder: Path) -> Path:
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["gcc", "-static", "-O1", "-o", folder / name, source], check=True, timeout=60)
    return folder / name


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("probe", tmp_path_factory.mktemp("probe"))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("crowd", tmp_path_factory.mktemp("crowd"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.from_env({"FARM_DATA": str(tmp_path_factory.mktemp("farm"))})


@pytest.fixture(scope="module")
def target(demo_distribution: Path) -> Target:
    return demo_target(demo_distribution)


@contextmanager
def step(settings: Settings, target: Target, folder: Path) -> Iterator[StepContext]:
    (folder / "work").mkdir(parents=True)
    with step_context(settings, folder / "work", folder / "log", limits=target.limits, wall_s=300) as context:
        yield context


@contextmanager
def template(settings: Settings, target: Target, context: StepContext) -> Iterator[Root]:
    with native_roots(settings).template(target, Arch.X86_64, context) as found:
        yield found.root


def run_in_room(
    settings: Settings, target: Target, folder: Path, *command: str, program: Path, above: Path | None = None
) -> tuple[Ran, str]:
    """How the command ended, and the log. `above` is laid over the template, as a dependency's layer is."""
    with step(settings, target, folder) as context, template(settings, target, context) as root:
        if above is not None:
            root = replace(root, lowers=(above, *root.lowers))
        with RootSession(root, context, confinement(settings, target)) as room:
            given = Bind(path=program, inside="/run/farm/probe")
            done = room.run(command, binds=[given])
        return done, context.log.path.read_text(errors="replace")


def said(log: str) -> dict[str, str]:
    return dict(re.findall(r"^PROBE (\S+) (\S+)$", log, re.MULTILINE))


def check(found: dict[str, str]) -> None:
    assert len(found) > 100
    reached = {name for name, answer in found.items() if answer == "ok"}
    assert reached <= _MAY_SUCCEED
    assert {name: found[name] for name in _REFUSED_BY_FILTER} == _REFUSED_BY_FILTER
    for name, answer in found.items():
        kind, _, number = name.partition("-")
        if kind in ("family", "pair") and number not in _FAMILIES:
            assert answer == "EAFNOSUPPORT", name
        if name.startswith("compat"):
            assert answer in ("ENOSYS", "EPERM", "EAFNOSUPPORT"), name


def test_a_recipe_reaches_nothing_of_the_kernel_that_has_no_namespace(
    settings: Settings, target: Target, probe: Path, tmp_path: Path
) -> None:
    done, log = run_in_room(settings, target, tmp_path / "a", "/run/farm/probe", program=probe)
    assert done.outcome is Outcome.SUCCEEDED, log
    found = said(log)
    assert found["uid"] == str(BUILD_UID)
    check({name: answer for name, answer in found.items() if name != "uid"})


def test_a_scriptlet_reaches_nothing_of_the_kernel_that_has_no_namespace(
    settings: Settings, target: Target, probe: Path, tmp_path: Path
) -> None:
    made = Layers(settings=settings, target=target, out=probe).make("%post\nOUT > /var/probe.txt", tmp_path)
    assert made.root is not None, made.log
    found = said((made.root.lowers[0] / "var/probe.txt").read_text())
    assert found["uid"] == "0"
    check({name: answer for name, answer in found.items() if name != "uid"})


def test_a_target_may_allow_user_namespaces(settings: Settings, target: Target, probe: Path, tmp_path: Path) -> None:
    allowing = replace(target, user_namespaces=True)
    _, log = run_in_room(settings, allowing, tmp_path / "a", "/run/farm/probe", program=probe)
    found = said(log)
    assert found["unshare-user"] == found["clone-user"] == "ok"
    assert {found[name] for name in ("core_pattern", "keyctl", "io_uring", "mount-cgroup")} & {"ok"} == set()


def test_no_program_of_a_dependency_runs_as_root_in_a_session(
    settings: Settings, target: Target, probe: Path, tmp_path: Path
) -> None:
    above = tmp_path / "above"
    script = '#!/bin/bash\necho "RAN $0 as $UID"\n'
    for folder in ("usr/local/sbin", "usr/local/bin", "usr/sbin"):
        (above / folder).mkdir(parents=True)
        for name in ("setpriv", "sh", "enter", "true", "env", "id"):
            (above / folder / name).write_text(script)
            (above / folder / name).chmod(0o4755)
    os.chown(above, settings.first_root_id, settings.first_root_id)
    command = ("bash", "-c", "setpriv; sh; env; id -u")
    _, log = run_in_room(settings, target, tmp_path / "a", *command, program=probe, above=above)
    uids = re.findall(r"^RAN \S+ as (\d+)$", log, re.MULTILINE)
    assert len(uids) >= 3, log
    assert set(uids) == {str(BUILD_UID)}


def test_files_of_an_installation_belong_to_no_user_of_the_host(
    settings: Settings, target: Target, probe: Path, tmp_path: Path
) -> None:
    scriptlet = (
        "%post\ncp /usr/bin/env /usr/bin/red-suid; chmod 4755 /usr/bin/red-suid; chown 1:1 /usr/libexec/NAME-out"
    )
    made = Layers(settings=settings, target=target, out=probe).make(scriptlet, tmp_path)
    assert made.root is not None, made.log
    upper = made.root.lowers[0]
    suid = upper / "usr/bin/red-suid"
    assert suid.stat().st_mode & 0o7777 == 0o4755
    assert suid.stat().st_uid == settings.first_root_id
    assert next(upper.glob("usr/libexec/*-out")).stat().st_uid == settings.first_root_id + 1
    for folder, folders, names in os.walk(upper):
        for path in (Path(folder, name) for name in (*folders, *names)):
            assert settings.first_root_id <= path.lstat().st_uid < settings.first_root_id + ID_COUNT, path


def test_each_session_is_another_user_of_the_host(
    settings: Settings, target: Target, probe: Path, tmp_path: Path
) -> None:
    command = ("cat", "/proc/self/uid_map", "/proc/self/gid_map")
    seen = set()
    for name in ("a", "b"):
        _, log = run_in_room(settings, target, tmp_path / name, *command, program=probe)
        uid, gid = (int(found) for found in re.findall(rf"^ +{BUILD_UID} +(\d+) +1$", log, re.MULTILINE))
        assert uid == gid in build_user_ids(settings.first_root_id)
        seen.add(uid)
    assert len(seen) == 2


def test_a_session_that_uses_up_the_limits_of_a_user_takes_nothing_from_another(
    settings: Settings, target: Target, crowd: Path, tmp_path: Path
) -> None:
    """Descriptors in flight over unix sockets, and pipes of the normal size."""

    def look(name: str) -> list[str]:
        _, log = run_in_room(settings, target, tmp_path / name, "/run/farm/probe", "look", program=crowd)
        return re.findall(r"^CROWD (.+)$", log, re.MULTILINE)

    alone = look("alone")
    assert alone == ["descriptor ok", "pipe 65536"]
    hold = ("/run/farm/probe", "hold")
    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(run_in_room, settings, target, tmp_path / "hold", *hold, program=crowd)
        until(lambda: holder.done() or [*tmp_path.glob("hold/work/*/results/full")], "the room that holds all", 60)
        (full,) = tmp_path.glob("hold/work/*/results/full")
        beside = look("beside")
        full.with_name("over").touch()
        assert "CROWD held ETOOMANYREFS" in holder.result()[1]
    assert beside == alone


def test_a_session_has_no_key_of_its_worker(settings: Settings, target: Target, probe: Path, tmp_path: Path) -> None:
    """As with ssh and kinit, which start a session keyring and leave keys in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(_KEYCTL, _JOIN_SESSION_KEYRING, b"farm-test-session") >= 0
    assert libc.syscall(_ADD_KEY, b"user", b"farm:canary", b"secret", 6, ctypes.c_int(_SESSION_KEYRING)) >= 0
    assert "farm:canary" in Path("/proc/keys").read_text()
    _, log = run_in_room(settings, target, tmp_path / "a", "cat", "/proc/keys", program=probe)
    assert "keyring" in log, "what it possesses is listed"
    assert "farm:canary" not in log
    assert "farm-test-session" not in log


def test_a_target_that_needs_the_hosts_root_is_refused_until_a_setting_allows_it(
    target: Target, tmp_path: Path
) -> None:
    with_mock = replace(target, engine=EngineName.MOCK)
    plain = Settings.from_env({"FARM_DATA": str(tmp_path)})
    with pytest.raises(HostUnfit, match="FARM_UNCONFINED"):
        confinement(plain, with_mock)
    for names in ("demo", "other, demo", "*"):
        allowing = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_UNCONFINED": names})
        assert confinement(allowing, with_mock).first_id is None
        assert confinement(allowing, target).first_id is not None, "what can be confined is"
    with pytest.raises(HostUnfit, match="FARM_UNCONFINED"):
        confinement(Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_UNCONFINED": "other"}), with_mock)


def test_a_host_without_user_namespaces_says_so(target: Target, tmp_path: Path) -> None:
    """A helper that ends as it does where the kernel refuses stands for such a host."""
    settings = Settings.from_env({"FARM_DATA": str(tmp_path)})
    helper = confinement(settings, target).helper
    helper.write_text("#!/bin/sh\necho 'enter: a user namespace: No space left on device' >&2; exit 125\n")
    confine._worked.clear()
    assert "makes no user namespace" in (host_problem(settings) or "")
    with pytest.raises(HostUnfit, match="name the target in FARM_UNCONFINED"):
        confinement(settings, target)
    assert confine._worked == set(), "nor does a process rely on the trial that another made before"
    allowing = replace(settings, unconfined="demo")
    assert confinement(allowing, target).first_id is None


def test_no_setting_makes_the_root_inside_one_of_the_hosts_users(
    settings: Settings, target: Target, tmp_path: Path
) -> None:
    most = 2**32 - 2 - 196_608
    assert build_user_ids(Settings(data=tmp_path, first_root_id=most).first_root_id).stop == 2**32 - 2
    for first in (0, 1, 1000, 99_999, most + 1, 2**32 - 131_072, 2**40):
        with pytest.raises(BadSettings, match="FARM_FIRST_ROOT_ID"):
            Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_FIRST_ROOT_ID": str(first)})
    helper = confinement(settings, target).helper
    shared = str(settings.first_root_id + 7)
    for map_words, problem in (
        (("--map", "0", "65536"), "one of the host's own users"),
        (("--map", "200000", "65536", "--user", "60990", "0"), "one after the map"),
        (("--map", str(settings.first_root_id), "65536", "--user", "60990", shared), "one after the map"),
        (("--map", "200000", "65536", "--user", "65535", "400000"), "an id within the map"),
        (("--map", "200000", "65536", "--user", "0", "400000"), "an id within the map"),
        (("--user", "60990", "400000"), "without --map"),
    ):
        done = subprocess.run([helper, "outside", *map_words, "--", "id"], capture_output=True, text=True)
        assert done.returncode == 125
        assert problem in done.stderr


def test_a_reopened_stream_reads_nothing_and_cuts_nothing_off_the_log(
    settings: Settings, target: Target, probe: Path, tmp_path: Path
) -> None:
    script = """
        echo first
        : > /dev/stdout && truncate -s 0 /dev/stdout; dd if=/dev/null of=/dev/stderr conv=trunc 2> /dev/null
        exec 7>&1
        chmod 666 /dev/fd/7 2> /dev/null && echo CHANGED
        timeout 2 cat /dev/fd/7 > /tmp/read 2> /tmp/refused
        grep -q 'Permission denied' /tmp/refused || echo READ
        echo last > /dev/stderr
    """
    done, log = run_in_room(settings, target, tmp_path / "a", "sh", "-c", script, program=probe)
    assert done.outcome is Outcome.SUCCEEDED, log
    assert re.findall(r"^(first|last|READ|CHANGED)$", log, re.MULTILINE) == ["first", "last"]


def test_sys_shows_no_device_of_the_host_and_nothing_in_it_can_be_changed(
    settings: Settings, target: Target, probe: Path, tmp_path: Path
) -> None:
    script = """
        cd /sys
        find . -type f ! -path './devices/system/cpu/*' ! -path './devices/system/node/*' ! -path './kernel/mm/*'
        find . -name net -prune -o -name 'pci*' -print -o -name serial -print -o -name address -print
        find . -writable ! -type l
        find . -type f -exec sh -c 'true > "$1"' _ {} ';' 2> /dev/null && find . -newer /proc/self/stat -type f
        echo online=$(cat devices/system/cpu/online)
    """
    _, log = run_in_room(settings, target, tmp_path / "a", "sh", "-c", script, program=probe)
    lines = [line for line in log.splitlines() if not line.startswith(("[farm]", "  ")) and line.strip()]
    assert [line for line in lines if line.startswith((".", "online="))] == [
        f"online={Path('/sys/devices/system/cpu/online').read_text().strip()}"
    ]

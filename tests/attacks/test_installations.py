"""Packages whose scriptlets attack the installation of a layer: real dnf, real roots, packages made with rpmbuild.

A scriptlet runs as root. It can leave rpm's chroot, see the folders that the sandbox shares with the worker, write into
dnf's output and end dnf. The worker must blame the package for it, record the root as dnf planned it, and follow
nothing that is left.
"""

import itertools
import os
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import createrepo_c
import pytest

from farm.config import Settings
from farm.errors import FarmError, LeaseLost, RootTrouble
from farm.formats.rpm.format import RpmFormat
from farm.formats.rpm.settings import settings_of
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import Target
from farm.repositories.folder import RepositoryFolder
from tests.contexts import demo_target, step_context
from tests.packages import make_srpm
from tests.waiting import until
from workers.core.context import Ended, StepContext
from workers.formats.base import BuildRequest, Made
from workers.formats.rpm import blame
from workers.formats.rpm.capabilities import Provided
from workers.formats.rpm.native import NativeEngine, native_roots
from workers.roots.listing import read_once
from workers.roots.root import Root
from workers.roots.stacked import root_of

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="the native engine mounts overlays and needs root"),
]

# Leaves rpm's chroot, as root with CAP_SYS_CHROOT can, and runs a command of the shell there.
_OUT = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>
#include <sys/stat.h>
int main(int c, char **v) {
  mkdir("/tmp/.j", 0755);
  int d = open("/", O_RDONLY);
  if (chroot("/tmp/.j") || fchdir(d)) return 99;
  for (int i = 0; i < 32; i++) if (chdir("..")) break;
  if (chroot(".")) return 98;
  execl("/bin/sh", "sh", "-c", v[1], (char *)0);
  return 97;
}
"""
_SPEC = """
%global debug_package %{nil}
%define __os_install_post %{nil}
%define _build_id_links none
Name: {name}
Version: 1
Release: 1
Summary: {name}
License: MIT
AutoReqProv: no
%description
{name}
%install
install -D -m 755 {out} %{buildroot}/usr/libexec/{name}-out
{scriptlet}
%files
/usr/libexec/{name}-out
"""
_NETWORK_WORDS = "Curl error (6): Could not resolve host name for http://mirror.example/repodata/repomd.xml"
# The words of a broken network, and of a full disk.
_FORGED = f"""echo '{_NETWORK_WORDS}'
echo 'Error: Failed to download metadata for repo x'
echo 'At least 9999MB more space needed on the / filesystem.'"""
_numbers = itertools.count(1)


def rpm_version() -> str:
    done = subprocess.run(["rpm", "--version"], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()[-1]


@dataclass(frozen=True)
class Layered:
    """The result of a layer: `root`, or `ended` for a failure of the package. `log` is the step's."""

    root: Root | None
    error: FarmError | None
    log: bytes

    @property
    def ended(self) -> Ended | None:
        assert self.error is None or isinstance(self.error, Ended), self.error
        return self.error

    @property
    def names(self) -> list[str]:
        assert self.root is not None, self.log[-3000:]
        return [package.identity for package in self.root.packages]


@dataclass
class Layers:
    """Layers of one template with one hostile package each."""

    settings: Settings
    target: Target
    out: Path

    def make(
        self,
        scriptlet: str,
        folder: Path,
        *,
        log_bytes: int = 8 * 2**20,
        forge: Callable[[bytes], bytes] | None = None,
        wall_s: float = 200,
        stop: threading.Event | None = None,
    ) -> Layered:
        """`forge` makes another binary package of what rpmbuild made."""
        name = f"evil{next(_numbers)}"
        repository = self._package(name, scriptlet, folder / name, forge)
        with self.context(folder / name, log_bytes, wall_s, stop) as context:
            roots = native_roots(self.settings)
            root: Root | None = None
            ended: FarmError | None = None
            with roots.template(self.target, Arch.X86_64, context) as template:
                others = set((template.folder / "layers").glob("new-*"))
                try:
                    with template.layered([name], [("farm", f"file://{repository}")]) as root:
                        pass
                except FarmError as error:
                    ended = error
                assert set((template.folder / "layers").glob("new-*")) <= others
            return Layered(root=root, error=ended, log=context.log.path.read_bytes())

    def build(self, scriptlet: str, folder: Path) -> Made:
        """An honest package that requires the hostile one."""
        name = f"evil{next(_numbers)}"
        repository = self._package(name, scriptlet, folder / name)
        with self.context(folder / name, 8 * 2**20) as context:
            request = BuildRequest(
                target=self.target,
                arch=Arch.X86_64,
                options=BuildOptions(),
                source=make_srpm("hello-noarch", folder),
                requires=(name,),
                repositories=(("farm", f"file://{repository}"),),
            )
            return NativeEngine(self.settings).build(request, context)

    def _package(self, name: str, scriptlet: str, folder: Path, forge: Callable[[bytes], bytes] | None = None) -> Path:
        folder.mkdir()
        spec = folder / f"{name}.spec"
        words = {
            "name": name,
            "out": str(self.out),
            "scriptlet": scriptlet.replace("OUT", f"/usr/libexec/{name}-out").replace("NAME", name),
        }
        text = _SPEC
        for key, value in words.items():
            text = text.replace("{" + key + "}", value)
        spec.write_text(text)
        repository = folder / "repository"
        repository.mkdir()
        _run("rpmbuild", "-bb", "--define", f"_topdir {folder}", "--define", f"_rpmdir {repository}", str(spec))
        if forge is not None:
            (rpm,) = repository.rglob("*.rpm")
            rpm.write_bytes(forge(rpm.read_bytes()))
        createrepo_c_tool = Path(createrepo_c.__file__).parent / "data/bin/createrepo_c"
        _run(str(createrepo_c_tool), "--quiet", str(repository))
        return repository

    @contextmanager
    def context(
        self, folder: Path, log_bytes: int, wall_s: float = 200, stop: threading.Event | None = None
    ) -> Iterator[StepContext]:
        (folder / "work").mkdir()
        limits = self.target.limits
        with step_context(
            self.settings, folder / "work", folder / "log", limits=limits, log_bytes=log_bytes, wall_s=wall_s, stop=stop
        ) as context:
            yield context


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def layers(demo_distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Layers:
    folder = tmp_path_factory.mktemp("fillings")
    (folder / "out.c").write_text(_OUT)
    _run("gcc", "-static", "-o", str(folder / "out"), str(folder / "out.c"))
    target = demo_target(demo_distribution)
    return Layers(Settings.from_env({"FARM_DATA": str(folder / "farm")}), target, folder / "out")


def _is_recorded(made: Layered) -> bool:
    return any(name.startswith("evil") for name in made.names)


def test_an_honest_package_is_installed_and_the_record_matches_rpms(layers: Layers, tmp_path: Path) -> None:
    made = layers.make("", tmp_path)
    assert _is_recorded(made)
    assert made.root is not None
    template = root_of(made.root.lowers[-1].parent)
    assert len(made.names) == len(template.packages) + 1
    shape = "%{NAME}-%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}.%{ARCH} %{SHA256HEADER}\n"
    root = made.root.lowers[-1]
    words = ["rpm", "--root", str(root), "--dbpath", settings_of(layers.target).rpmdb, "-qa", "--qf", shape]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert sorted(line for line in found if not line.startswith("gpg-pubkey")) == sorted(
        f"{one.identity} {one.digest}" for one in template.packages
    )
    given = read_once(template.lowers[0].with_name("provided"), Provided)
    assert given.meets("/usr/bin/sh") or given.meets("/bin/sh")


@pytest.mark.parametrize(
    "scriptlet",
    [
        "%pre\nkill -9 $PPID",
        "%post\nkill -9 $PPID",
        "%posttrans\nkill -TERM $PPID; kill -9 $PPID",
        "%post\nkill -STOP $PPID; kill -9 $PPID",
        f"%pre\nexec > /proc/$PPID/fd/1 2>&1\necho\n{_FORGED}\nkill -9 $PPID",
        "%pre -p <lua>\nerror('no')",
        "%pretrans -p <lua>\nerror('no')",
        "%pre\nexit 1",
        "%post\nrm -f /etc/passwd; OUT 'mkfifo /mnt/root/etc/passwd'",
        "%post\nOUT 'ln -sf /work/x /mnt/root/etc/group'",
    ],
    ids=[
        "pre",
        "post",
        "posttrans",
        "stopped",
        "forged-words",
        "lua",
        "pretrans",
        "fails",
        "passwd-pipe",
        "group-link",
    ],
)
def test_a_scriptlet_that_ends_dnf_is_the_packages_failure(layers: Layers, tmp_path: Path, scriptlet: str) -> None:
    made = layers.make(scriptlet, tmp_path)
    assert made.ended is not None, made.log[-3000:]
    assert made.ended.outcome is Outcome.FAILED
    assert "installing its requirements failed" in made.ended.reason


def test_a_flood_that_hides_dnfs_words_is_no_broken_network(layers: Layers, tmp_path: Path) -> None:
    line = "nothing to see here, just a line of some length " + "." * 40
    loop = f"i=0\nwhile [ $i -lt 2000 ]; do i=$((i+1)); echo '{line}'; done"
    flood = f"%pre\nexec > /proc/$PPID/fd/1\n{loop}\n{_FORGED}\nkill -9 $PPID"
    made = layers.make(flood, tmp_path, log_bytes=64 * 2**10)
    assert made.ended is not None
    assert made.ended.outcome is Outcome.FAILED


def test_a_flood_does_not_hide_that_a_package_was_not_installed(layers: Layers, tmp_path: Path) -> None:
    loop = f"i=0\nwhile [ $i -lt 2000 ]; do i=$((i+1)); echo '{'.' * 100}'; done"
    made = layers.make(f"%pre\nexec > /proc/$PPID/fd/1\n{loop}\nexit 1", tmp_path, log_bytes=64 * 2**10)
    assert made.ended is not None
    assert "PREIN scriptlet" in made.ended.reason


@pytest.mark.parametrize(
    "command",
    [
        "ln -s /work/other /work/list",
        "mkdir /work/list",
        "rm -f /work/plan; ln -s /work/other /work/plan",
        "rm -f /work/plan; mkfifo /work/plan /work/list",
        'rm -f /work/plan; echo \'{"added": [], "removed": []}\' > /work/plan',
        "timeout 2 sh -c 'echo {} > /work/plan; head -c 60000000 /dev/zero > /work/plan'; true",
        "head -c 60000000 /dev/zero > /work/list",
        "rm -rf /work/* /work/.[a-z]*",
        # The database no longer names the package.
        "rm -rf /mnt/root/var/lib/rpm /mnt/root/usr/lib/sysimage/rpm; true",
        # A daemon that goes on while the sandbox is there.
        "setsid sh -c 'while :; do echo P evil >> /work/list; rm -f /work/plan; done' < /dev/null > /dev/null 2>&1 &",
    ],
    ids=["link", "folder", "pipe-link", "pipes", "forged", "grown", "large", "gone", "database", "daemon"],
)
def test_a_scriptlet_that_changes_the_shared_folder_changes_no_record(
    layers: Layers, tmp_path: Path, command: str
) -> None:
    before = set(layers.settings.templates.glob("*/*/*/*"))
    command = command.replace("'", "'\\''")
    made = layers.make(f"%post\nOUT '{command}'; :", tmp_path)
    if made.ended is not None:
        assert made.ended.outcome is Outcome.FAILED, "the package broke the root, which then is not kept"
        assert set(layers.settings.templates.glob("*/*/*/*")) <= before
        return
    assert _is_recorded(made)
    assert made.root is not None
    assert sorted(path.name for path in made.root.lowers[0].parent.iterdir()) == ["list", "upper"]
    assert (made.root.lowers[0].parent / "list").stat().st_size < 2**20


def test_a_package_that_hides_itself_from_rpm_is_recorded(layers: Layers, tmp_path: Path) -> None:
    """Its daemon stops the commands after dnf, erases the package from the database, and lets the rest go on."""
    daemon = """
for p in /proc/[0-9]*; do
  case "$(tr "\\0" " " < $p/cmdline 2>/dev/null)" in "sh /run/fill.sh"*) F=${p#/proc/}; kill -STOP $F;; esac
done
while grep -qs -- '/bin/[d]nf' /proc/[0-9]*/cmdline; do sleep 0.1; done
rpm --root /mnt/root --dbpath DATABASE -e --justdb --nodeps --noscripts NAME
rpm --root /mnt/root --dbpath DATABASE -q NAME > /mnt/root/etc/hidden 2>&1
kill -CONT $F"""
    start = "cat > /work/home/d.sh; setsid sh /work/home/d.sh < /dev/null > /dev/null 2>&1 &"
    hide = f"%posttrans\nOUT '{start}' <<'EOF'\n{daemon}\nEOF\nsleep 1"
    made = layers.make(hide.replace("DATABASE", settings_of(layers.target).rpmdb), tmp_path)
    assert made.root is not None, made.log[-3000:]
    assert "is not installed" in (made.root.lowers[0] / "etc/hidden").read_text()
    assert _is_recorded(made)


@pytest.fixture
def canaries() -> Iterator[str]:
    """Private keys in the folders of distributions; files that were made for this are removed afterwards."""
    word = f"farm-canary-{os.getpid()}"
    made: list[Path] = []
    files = [Path("/etc/ssl/private", word), Path("/etc/pki/tls/private", word), Path("/etc/pki/nssdb", word)]
    try:
        for file in files:
            missing = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
            made += missing[-1:]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"content of {word}")
        yield word
    finally:
        for file in files:
            file.unlink(missing_ok=True)
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)


def test_a_scriptlet_sees_no_private_key_of_the_host(layers: Layers, tmp_path: Path, canaries: str) -> None:
    look = (
        "%post\nOUT 'ls -aR /etc > /mnt/root/etc/seen; grep -rs canary /etc >> /mnt/root/etc/seen; "
        "ls /root /home /srv >> /mnt/root/etc/seen 2>&1'; :"
    )
    made = layers.make(look, tmp_path)
    assert made.root is not None, made.log[-3000:]
    seen = (made.root.lowers[0] / "etc/seen").read_text(errors="replace")
    assert "/etc/ssl/certs" in seen, "the scriptlet did leave the chroot"
    assert canaries not in seen
    assert "private" not in seen


_TO_A_LINK = "mkdir -p /evil/farm; cp /usr/libexec/NAME-out /evil/farm/enter; mv /run /was; ln -s /newroot/evil /run"


@pytest.mark.parametrize(
    ("command", "replaced"),
    [
        (_TO_A_LINK, "/run"),
        ("rm -rf /run/farm; ln -s /usr/libexec /run/farm", "/run/farm"),
        ("rm -rf /run; : > /run", "/run"),
        ("rm -rf /builddir; ln -s /nowhere /builddir", "/builddir"),
        ("mv /var/tmp /was; : > /var/tmp", "/var/tmp"),
    ],
)
def test_a_package_that_replaces_a_folder_over_which_a_session_mounts_fails(
    layers: Layers, tmp_path: Path, command: str, replaced: str
) -> None:
    """A link there would have the sandbox put the farm's helper where a program of the package lies in its place."""
    made = layers.make(f"%post\n{command}; :", tmp_path)
    assert made.ended is not None, made.log[-3000:]
    assert made.ended.outcome is Outcome.FAILED
    assert f"replaces the folder {replaced}" in made.ended.reason


@pytest.mark.parametrize(
    "command", ["rm -rf /run /builddir /tmp /var/tmp", "chmod 000 /", "mv /var /was; ln -s was /var"]
)
def test_a_package_that_takes_folders_away_makes_no_trouble_of_the_host(
    layers: Layers, tmp_path: Path, command: str
) -> None:
    assert layers.build(f"%post\n{command}; :", tmp_path).outcome in {Outcome.SUCCEEDED, Outcome.FAILED}


def test_a_root_that_a_package_makes_useless_is_the_packages_failure(layers: Layers, tmp_path: Path) -> None:
    run = layers.build("%post\nchmod 000 /run /builddir; :", tmp_path)
    assert run.outcome is Outcome.FAILED
    assert run.reason is not None
    assert run.reason.startswith("with its requirements installed the build root cannot be entered")


def _with_another_payload(content: bytes) -> bytes:
    return content[:-20] + bytes(byte ^ 0xFF for byte in content[-20:-10]) + content[-10:]


def _for_another_system(content: bytes) -> bytes:
    assert content.count(b"linux\0") >= 1
    return content.replace(b"linux\0", b"macos\0")


@pytest.mark.parametrize("forge", [_with_another_payload, _for_another_system])
def test_a_package_that_rpm_does_not_take_is_not_the_hosts_trouble(
    layers: Layers, tmp_path: Path, forge: Callable[[bytes], bytes]
) -> None:
    """dnf refuses it before any scriptlet runs. Three of these had the host quarantined."""
    made = layers.make("", tmp_path, forge=forge)
    assert made.ended is not None
    assert made.ended.outcome is Outcome.FAILED


@pytest.mark.skipif(rpm_version() != "4.18.0", reason="only rpm 4.18.0 hangs at named pipes")
def test_a_package_with_a_named_pipe_at_which_rpm_hangs_is_refused_in_words(layers: Layers, tmp_path: Path) -> None:
    """The build that requires it waited for its whole time limit."""
    made = layers.make("rm %{buildroot}OUT\nmkfifo %{buildroot}OUT", tmp_path, wall_s=60)
    assert made.ended is not None
    assert made.ended.outcome is Outcome.FAILED
    assert "-out, at which rpm 4.18.0 of this build host hangs" in str(made.ended)


def test_a_scriptlet_that_never_ends_delays_no_other_installation(layers: Layers, tmp_path: Path) -> None:
    layers.make("", tmp_path)  # so that the template is there
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        (tmp_path / "a").mkdir()
        stuck = pool.submit(layers.make, "%pre -p /bin/sh\nwhile :; do :; done", tmp_path / "a", stop=stop)
        try:
            until(lambda: list(layers.settings.templates.glob("*/*/*/layers/new-*/overlay-work")), "it to begin")
            time.sleep(2)
            (tmp_path / "b").mkdir()
            assert _is_recorded(layers.make("", tmp_path / "b"))
            assert not stuck.done()
        finally:
            stop.set()
        assert isinstance(stuck.result().error, LeaseLost)


def test_limits_that_a_build_set_itself_are_no_trouble_of_the_host(layers: Layers, tmp_path: Path) -> None:
    layers.make("", tmp_path)  # so that the template is there
    (tmp_path / "b").mkdir()
    made = layers.make("", tmp_path / "b", wall_s=0)
    assert made.ended is not None
    assert made.ended.outcome is Outcome.TIMED_OUT


def test_no_scriptlet_takes_the_lock_of_a_repository(tmp_path: Path) -> None:
    """A lock needs only the right to read, and every installation sees the repositories."""
    RepositoryFolder(tmp_path / "repository", RpmFormat()).ensure()
    state = tmp_path / "repository/state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_a_requirement_of_any_length_is_unresolvable(layers: Layers, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with layers.context(tmp_path / "x", 2**20) as context:
        roots = native_roots(layers.settings)
        for wanted in ("a" * 301, "a" * 4000, "lib(" + "b" * 2000 + ") >= 1"):
            with (
                roots.template(layers.target, Arch.X86_64, context) as template,
                pytest.raises(Ended, match="nothing provides") as ended,
                template.layered([wanted], []),
            ):
                pass
            assert ended.value.outcome is Outcome.UNRESOLVABLE


def test_trouble_that_packages_may_make_counts_for_no_host_alone(
    layers: Layers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words of dnf that no row of the table is for."""
    monkeypatch.setattr(blame, "DNF", tuple(case for case in blame.DNF if case.name != "not-installable"))
    made = layers.make("", tmp_path, forge=_with_another_payload)
    assert isinstance(made.error, RootTrouble)
    assert made.error.remote == "the packages that it requires"

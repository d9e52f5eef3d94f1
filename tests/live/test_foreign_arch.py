"""Building for an arch that is not this machine's: with an emulator it builds, without one it is the host's trouble.

The kernel's registered emulators are not changed here: a missing or broken one is made in a user namespace, which has
its own binfmt_misc (Linux 6.7).
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from farm.artifacts.directory import DirectoryStore
from farm.config import Settings
from farm.formats.rpm.rpmfile import read_binary
from tests.artifacts import path_of
from tests.emulator import FOREIGN, need_distribution, need_emulator
from tests.leftovers import inside
from tests.packages import make_srpm

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="build roots need root"),
]
ROOT = Path(__file__).parent.parent.parent
HOST_UNFIT = 44
_AARCH64 = 183  # as an ELF header says it
_BINFMT = "/proc/sys/fs/binfmt_misc"
_ELSEWHERE = ["unshare", "--user", "--map-root-user", "--mount", "--", "sh", "-euc"]
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


@dataclass(frozen=True, kw_only=True)
class Place:
    data: Path
    folder: Path

    def step(self, *words: str | Path, emulator: str | None = None, into: str = "said.json") -> tuple[int, str]:
        """Run one step by hand, in a namespace with the emulator of a script if there is one; its code and words."""
        command = [sys.executable, "-m", "workers.by_hand", *map(str, words)]
        if emulator is not None:
            script = f'mount -t binfmt_misc binfmt_misc {_BINFMT}\n{emulator}\nexec "$@"'
            command = [*_ELSEWHERE, script, "sh", *command]
        with (self.folder / into).open("wb") as out:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "FARM_DATA": str(self.data)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                timeout=240,
                check=False,
            )
        return done.returncode, done.stderr

    def document(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A farm's data folder whose distribution is there for the foreign arch, and a source package fetched."""
    found = need_distribution()
    data = tmp_path_factory.mktemp("farm")
    (data / "demo").mkdir()
    (data / "demo/distribution").symlink_to(found)
    place = Place(data=data, folder=tmp_path_factory.mktemp("folder"))
    srpm = make_srpm("hello-c", place.folder)
    code, said = place.step("fetch", "--srpm", srpm, "--target", "demo", into="fetch.json")
    assert code == 0, said
    return place


def test_a_package_is_built_for_another_arch_in_an_emulator(place: Place) -> None:
    need_emulator()
    code, said = place.step("srpm", "--after", "fetch.json", "--arch", FOREIGN, into="srpm.json")
    assert code == 0, said
    code, said = place.step("build", "--after", "srpm.json", "--arch", FOREIGN, into="build.json")
    assert code == 0, said
    rpms = place.document("build.json")["outputs"]["build"]["rpms"]
    (main,) = [rpm for rpm in rpms if rpm["identity"].startswith("hello-c-1.0")]
    path = path_of(DirectoryStore(Settings(data=place.data).artifacts), main["sha256"])
    assert read_binary(path).nevra.arch == FOREIGN.rpm
    program = _unpacked(path, place.folder / "unpacked") / "usr/bin/hello-c"
    assert int.from_bytes(program.read_bytes()[18:20], "little") == _AARCH64
    assert inside(Settings(data=place.data)) == []


def test_build_requires_are_those_of_the_arch_that_is_built(place: Place) -> None:
    """The list in the source package, which this machine's arch made, has packages that the other arch lacks."""
    need_emulator()
    srpm = make_srpm("arch-requires", place.folder)
    code, said = place.step("fetch", "--srpm", srpm, "--target", "demo", into="fetch2.json")
    assert code == 0, said
    code, said = place.step("srpm", "--after", "fetch2.json", into="srpm2.json")
    assert code == 0, said
    listed = place.document("srpm2.json")["outputs"]["srpm"]
    assert (listed["arch"], sorted(listed["build_requires"])) == ("x86_64", ["libasan8(x86-64)", "libzstd-dev(x86-64)"])
    code, said = place.step("build", "--after", "srpm2.json", "--arch", FOREIGN, into="build2.json")
    assert code == 0, said
    store = DirectoryStore(Settings(data=place.data).artifacts)
    (main,) = place.document("build2.json")["outputs"]["build"]["rpms"]
    assert read_binary(path_of(store, main["sha256"])).nevra.arch == FOREIGN.rpm
    records = [path.read_bytes() for path in (place.data / "artifacts").rglob("*") if path.is_file()]
    (record,) = [json.loads(data) for data in records if b'"package":"arch-requires' in data and b'"packages":' in data]
    assert [sorted(one) for one in record["build_requires"]] == [[], ["bc", "libzstd-dev(aarch-64)"]]


def _unpacked(package: Path, into: Path) -> Path:
    into.mkdir()
    script = 'rpm2cpio "$1" | cpio --quiet -idm'
    subprocess.run(["sh", "-euc", script, "sh", package], cwd=into, check=True, stdin=subprocess.DEVNULL, timeout=60)
    return into


def _registered(emulator: str, flags: str) -> str:
    return f"printf '%s\\n' ':qemu-aarch64:M::{_MAGIC}:{_MASK}:{emulator}:{flags}' > {_BINFMT}/register"


@pytest.mark.parametrize(
    ("emulator", "problem"),
    [
        ("", "no emulator is registered; install qemu-user-static"),
        (_registered("/bin/false", "F"), "does not run a probe"),
        (_registered("/bin/true", "F") + f"\necho 0 > {_BINFMT}/qemu-aarch64", "its binfmt_misc entry is disabled"),
        (_registered("/bin/true", ""), "lacks the F flag"),
    ],
    ids=["missing", "broken", "disabled", "out-of-reach"],
)
def test_without_a_working_emulator_it_is_the_hosts_trouble(place: Place, emulator: str, problem: str) -> None:
    if subprocess.run([*_ELSEWHERE, f"mount -t binfmt_misc b {_BINFMT}"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel has no binfmt_misc for a user namespace")
    code, said = place.step("srpm", "--after", "fetch.json", "--arch", FOREIGN, emulator=emulator)
    assert (code, "this host cannot run aarch64: " in said, problem in said) == (HOST_UNFIT, True, True), said

"""A package format that the farm does not know is added by one folder and two lines: its packages are built
in real roots, by the steps alone and by a whole farm with Redis and Celery.
"""

import os
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from farm import Farm
from farm.artifacts import open_store
from farm.config import Settings
from farm.errors import BadRequest, BadSource
from farm.formats.registry import format_of
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.model.target import Limits, RepositorySource, Target
from farm.model.work import AnyResult, PinnedRepository, Work
from farm.repositories import RepositoryKind, RepositoryName, RepositoryPackage
from farm.repositories.directory import DirectoryRepositories
from farm.repositories.pulp import PulpRepositories
from farm.steps.build import BuildInput
from farm.steps.fetch import FetchInput
from farm.steps.srpm import SrpmInput
from farm.up.embedded import running_farm
from tests import toy_tar
from tests.artifacts import path_of
from tests.packages import commit_all, git
from tests.rpms import sha256
from tests.waiting import until
from workers.steps.runner import run_step

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="build roots are overlays, which only root mounts"),
]

_WITHIN_S = 90.0
_PROGRAMS = ("sh", "tar", "mkdir", "cp", "cat", "true")
_LIMITS = Limits(wall_s=20, memory_bytes=2**30, disk_bytes=2**30)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the one package of every root: a shell and an archiver of this host, with their libraries."""
    assert format_of("tar").name == toy_tar.TarFormat.name
    folder = tmp_path_factory.mktemp("base")
    root = folder / "root"
    needed: set[str] = set()
    for name in _PROGRAMS:
        path = Path(shutil.which(name) or "").resolve()
        needed |= {word for word in _said("ldd", path).split() if word.startswith("/")}
        (root / "usr/bin").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "usr/bin" / name)
    for library in needed:
        place = root / Path("usr", *Path(library).parts[-3 if "linux-gnu" in library else -2 :])
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "manifest.json").write_text('{"name": "base", "version": "1"}')
    package = folder / "base_1_any.tar"
    with tarfile.open(package, "w") as tar:
        tar.add(root, arcname=".", filter=_of_root)
    shutil.rmtree(root)
    repositories = DirectoryRepositories(folder / "published")
    given = RepositoryPackage(path=package, sha256=sha256(package), filename=package.name)
    repositories.add(_repository("base"), [given])
    return Path(urlsplit(repositories.url(_repository("base"))).path)


def _repository(target: str) -> RepositoryName:
    return RepositoryName(target=target, kind=RepositoryKind.BINARY, arch=Arch.X86_64, format="tar")


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member


def _said(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


class Toy:
    """The steps of one package after the other."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings.from_env({"FARM_DATA": str(folder / "data")})
        self.repositories = DirectoryRepositories(folder / "built")
        self.target = Target(
            name="toy",
            distribution="toy",
            release="1",
            format="tar",
            arches=(Arch.X86_64,),
            repositories=(RepositorySource(name="base", baseurl=f"file://{base}", gpgcheck=False),),
            packages=("base",),
            limits=_LIMITS,
        )

    def build(self, name: str, files: dict[str, str]) -> AnyResult:
        tree = _git(self.folder / name, files)
        source = Source(kind=SourceKind.GIT, url=tree, reader_uid=os.getuid())
        fetched = self._run("fetch", FetchInput(source=source, arch=Arch.X86_64))
        if fetched.output is None:
            return fetched
        one = fetched.output
        given = SrpmInput(archive=one.archive, spec=one.spec, commit_at=one.commit_at, arch=Arch.X86_64)
        made = self._run("srpm", given)
        if made.output is None:
            return made
        source_package = made.output
        name = _repository("toy")
        version = self.repositories.current(name)
        pinned = PinnedRepository(name="farm", url=self.repositories.url(name, version), version=version)
        return self._run(
            "build",
            BuildInput(
                srpm=source_package.srpm,
                identity=source_package.identity,
                build_requires=source_package.build_requires,
                arch=Arch.X86_64,
                repositories=(pinned,),
            ),
        )

    def _run(self, kind: str, given: object) -> AnyResult:
        work = Work(
            attempt=f"1.{kind}.1",
            kind=kind,
            build_id=1,
            package="toy",
            target=self.target,
            options=BuildOptions(),
            limits=_LIMITS,
            input=given,
        )
        return run_step(work, self.settings)

    def publish(self, package: Artifact) -> Path:
        path = path_of(open_store(self.settings), package.sha256)
        given = RepositoryPackage(path=path, sha256=package.sha256, filename=package.name)
        self.repositories.add(_repository("toy"), [given])
        return path


@pytest.fixture
def toy(base: Path, tmp_path: Path) -> Toy:
    return Toy(base, tmp_path)


HELLO = {
    "manifest.json": '{"name": "hello", "version": "1.2", "build": "sh make"}',
    "make": "echo hello > greeting",
}
NEEDS = {
    "manifest.json": '{"name": "more", "version": "3", "needs": ["hello"], "build": "cat /opt/hello/greeting > copy"}'
}


def test_a_package_of_another_format_is_built_and_the_next_one_needs_it(toy: Toy) -> None:
    first = toy.build("hello", HELLO)
    assert first.outcome is Outcome.SUCCEEDED, first.reason
    (package,) = first.output.rpms
    assert (package.name, package.identity) == ("hello_1.2_any.tar", "hello_1.2_any")
    assert [phase.name for phase in first.phases] == ["template", "layer", "unpack", "make", "collect"]

    unresolvable = toy.build("early", NEEDS)
    assert (unresolvable.outcome, unresolvable.reason) == (Outcome.UNRESOLVABLE, "nothing provides hello")

    toy.publish(package)
    second = toy.build("more", NEEDS)
    assert second.outcome is Outcome.SUCCEEDED, second.reason
    path = toy.publish(second.output.rpms[0])
    with tarfile.open(path) as tar:
        copy = tar.extractfile("opt/more/copy")
        assert copy is not None
        assert copy.read() == b"hello\n"
    names = {artifact.name for artifact in second.artifacts}
    assert names >= {"more_3_any.tar", "root.json", "provenance.json", "build.x86_64.log"}


@pytest.mark.parametrize(
    ("files", "step", "reason"),
    [
        ({"README": "no manifest"}, "fetch", "there is no manifest.json in the tree"),
        ({"manifest.json": "{"}, "srpm", "the manifest cannot be read"),
        ({"manifest.json": '{"name": "A B", "version": "1"}'}, "srpm", "is not name_version_arch"),
        ({"manifest.json": '{"name": "x", "version": "1", "build": "echo is broken; false"}'}, "build", "is broken"),
    ],
)
def test_a_failing_package_of_another_format_is_a_result_with_a_reason(
    toy: Toy, files: dict[str, str], step: str, reason: str
) -> None:
    result = toy.build("bad", files)
    assert result.outcome is Outcome.FAILED
    assert reason in (result.reason or "")
    assert [artifact.name for artifact in result.artifacts if artifact.kind == "log"] == [
        f"{step}.x86_64.log" if step == "build" else f"{step}.log"
    ]


def test_the_limits_of_a_target_hold_for_another_format(toy: Toy) -> None:
    result = toy.build("long", {"manifest.json": '{"name": "x", "version": "1", "build": "while :; do :; done"}'})
    assert result.outcome is Outcome.TIMED_OUT


def test_a_repository_takes_packages_of_its_own_format_alone(toy: Toy) -> None:
    toy.repositories.current(_repository("toy"))
    with pytest.raises(BadRequest, match="of a repository of another format"):
        toy.repositories.current(replace(_repository("toy"), format="rpm"))
    with pytest.raises(BadRequest, match="has rpm packages, and toy/x86_64/os takes tar packages"):
        toy.repositories.copy(replace(_repository("base"), format="rpm"), 1, _repository("toy"), [])


def test_pulp_has_no_place_for_packages_of_another_format_and_the_farm_says_so_at_once(
    farm: Farm, tmp_path: Path
) -> None:
    pulp = {"FARM_REPOSITORIES": "pulp", "FARM_PULP_URL": "http://127.0.0.1:1"}
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_TARGETS": str(farm.settings.targets), **pulp})
    with pytest.raises(BadRequest, match="tar cannot be published to Pulp, which has no content type"):
        PulpRepositories(settings).current(_repository("toy"))
    with (
        Farm.connect(replace(farm.settings, repositories="pulp", pulp_url="http://127.0.0.1:1")) as other,
        pytest.raises(BadRequest, match="tar cannot be published to Pulp"),
    ):
        other.request(git=_git(tmp_path / "x", HELLO), target="toy")


# --- a whole farm ---------------------------------------------------------------------------------------------------

_TARGET = """
distribution = "toy"
release = "1"
format = "tar"
arches = ["x86_64"]
packages = ["base"]

[[repositories]]
name = "base"
baseurl = "file://{base}"
gpgcheck = false
"""


@pytest.fixture(scope="module")
def farm(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    data = tmp_path_factory.mktemp("f")
    (data / "targets").mkdir()
    (data / "targets/toy.toml").write_text(_TARGET.replace("{base}", str(base)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FARM_EXTENSIONS", toy_tar.__name__)
        env = {"FARM_DATA": str(data), "FARM_TARGETS": str(data / "targets"), "FARM_EXTENSIONS": toy_tar.__name__}
        settings = Settings.from_env(env)
        with running_farm(settings), Farm.connect(settings) as found:
            yield found


def _git(folder: Path, files: dict[str, str]) -> str:
    folder.mkdir()
    git(folder, "init", "--quiet")
    for path, content in files.items():
        (folder / path).write_text(content)
    commit_all(folder, "sources")
    return str(folder)


def test_a_farm_builds_fails_and_retries_packages_of_another_format(farm: Farm, tmp_path: Path) -> None:
    manifest = '{"name": "flaky", "version": "2", "build": "echo it is broken; false"}'
    build = farm.enqueue(git=_git(tmp_path / "flaky", {"manifest.json": manifest}), target="toy")
    result = build.wait(timeout_s=_WITHIN_S)
    assert (result.outcome, result.package, result.nevra) == (Outcome.FAILED, "flaky", "flaky_2_src")
    assert "it is broken" in (result.reason or "")
    farm.retry(build.id, "build")
    again = build.wait(timeout_s=_WITHIN_S)
    (step,) = [one for one in again.steps if one.kind == "build"]
    assert [attempt.outcome for attempt in step.attempts] == [Outcome.FAILED] * 2


def test_a_farm_publishes_packages_of_another_format_and_they_are_installed_from_the_repository(
    farm: Farm, tmp_path: Path
) -> None:
    first = farm.enqueue(git=_git(tmp_path / "hello", HELLO), target="toy").wait(timeout_s=_WITHIN_S)
    assert first.outcome is Outcome.SUCCEEDED, first.reason
    second = farm.enqueue(git=_git(tmp_path / "more", NEEDS), target="toy").wait(timeout_s=_WITHIN_S)
    assert second.outcome is Outcome.SUCCEEDED, f"its root is filled from what the farm published: {second.reason}"

    repository = farm.repository("toy", "x86_64")
    words = shlex.split(repository.install_command("more"))
    subprocess.run([*words, tmp_path / "root"], check=True, cwd=Path(__file__).parents[2])
    assert (tmp_path / "root/opt/more/copy").read_text() == "hello\n"

    name, source = _repository("toy"), RepositoryName(target="toy", kind=RepositoryKind.SOURCE, format="tar")
    repositories = DirectoryRepositories(farm.settings.repositories_dir)
    assert [one.identity for one in repositories.index(name, repository.version)] == ["hello_1.2_any", "more_3_any"]
    assert {one.filename for one in repositories.index(source, 2)} == {"hello_1.2_src.tar", "more_3_src.tar"}

    done = farm.rollback("toy", to=1, arch="x86_64")
    assert done.has_changed
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([*words, tmp_path / "root"], check=True, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)


def test_a_farm_cancels_a_package_of_another_format(farm: Farm, tmp_path: Path) -> None:
    manifest = '{"name": "endless", "version": "1", "build": "while :; do :; done"}'
    build = farm.enqueue(git=_git(tmp_path / "endless", {"manifest.json": manifest}), target="toy")

    def is_running() -> bool:
        return any(one.kind == "build" and one.status is Status.RUNNING for one in build.refresh().steps)

    until(is_running, "the build step to run", _WITHIN_S)
    build.cancel()
    assert build.wait(timeout_s=_WITHIN_S).outcome is Outcome.CANCELLED


def test_what_another_format_does_not_have_is_refused_when_it_is_asked_for(farm: Farm, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="a tar package has neither --with"):
        farm.request(git=_git(tmp_path / "x", HELLO), target="toy", with_=["tests"])
    (tmp_path / "x.tar").write_bytes(b"no tar")
    with pytest.raises(BadSource, match="is not a tar"):
        farm.request(srpm=tmp_path / "x.tar", target="toy")

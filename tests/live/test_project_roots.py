"""Projects on a whole farm: roots see what their project names and nothing else, and packages of two projects with one
name live side by side. One farm answers all questions; a package's release says which project built it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm import Farm
from farm.config import Settings
from farm.model.actor import Actor, Role
from farm.model.build import Build
from farm.model.outcome import Outcome
from farm.targets.load import SHIPPED
from farm.up.embedded import Embedded, running_farm
from tests.packages import make_git, make_srpm
from tests.up import published

pytestmark = pytest.mark.live
WITHIN_S = 120.0
ARCH = "x86_64"
#: A target whose roots consist of packages that the default project built, too.
ON_TOP = """
[[repositories]]
name = "built"
target = "demo"
gpgcheck = false
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Settings:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    data = tmp_path_factory.mktemp("f")
    (data / "demo").mkdir()
    (data / "demo" / "distribution").symlink_to(demo_distribution)
    (data / "targets").mkdir()
    shipped = (SHIPPED / "demo.toml").read_text()
    on_top = shipped.replace('["demo-build"]', '["demo-build", "libgreet-devel"]')
    (data / "targets/on-top.toml").write_text(on_top + ON_TOP)
    return Settings.from_env(
        {"FARM_DATA": str(data), "FARM_TARGETS": str(data / "targets"), "FARM_OWNER": "root", "FARM_UPLOAD_LOGS": "1"}
    )


@pytest.fixture(scope="module")
def embedded(settings: Settings) -> Iterator[Embedded]:
    with running_farm(settings, build_slots=2) as embedded:
        yield embedded


@pytest.fixture(scope="module")
def farm(settings: Settings, embedded: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """With the package libgreet in the default project and in the projects base and other."""
    folder = tmp_path_factory.mktemp("srpms")
    with Farm.connect(settings) as farm:
        for name, builds_on in (("base", ()), ("other", ()), ("apps", ("base",)), ("alone", ())):
            farm.new_project(name, targets=["demo"], builds_on=builds_on)
        farm.new_project("roots", targets=["on-top"])
        farm.add_package("base", "libgreet", git=make_git("libgreet", folder), ref="main", arches=[ARCH])
        builds = [
            farm.enqueue(srpm=make_srpm("libgreet", folder), target="demo", arches=[ARCH], defines=[("dist", ".main")]),
            farm.enqueue(project="base", package="libgreet", defines=[("dist", ".base")]),
            farm.enqueue(
                srpm=make_srpm("libgreet", folder), project="other", arches=[ARCH], defines=[("dist", ".other")]
            ),
        ]
        for build in builds:
            ended = build.wait(timeout_s=WITHIN_S)
            assert ended.outcome is Outcome.SUCCEEDED, ended.reason
        yield farm


def built(farm: Farm, package: str, folder: Path, **more: object) -> Build:
    asked = {"srpm": make_srpm(package, folder), "arches": [ARCH], **more}
    return farm.enqueue(**asked).wait(timeout_s=WITHIN_S)  # type: ignore[arg-type]


def in_root(farm: Farm, build: Build, package: str = "libgreet-devel") -> list[str]:
    """The packages of this name in the root of the last attempt of the `build` step."""
    step = next(step for step in farm.build(build.id).steps if step.kind == "build")
    record = next(one for one in step.attempts[-1].artifacts if one.name == "root.json")
    identities = [one["nevra"] for one in json.loads(farm.read(record))]
    return [one.replace("-0:", "-") for one in identities if one.startswith(f"{package}-")]


def test_each_project_has_its_packages_in_repositories_of_its_own(farm: Farm, settings: Settings) -> None:
    for project, release in (("main", ".main"), ("base", ".base"), ("other", ".other")):
        place = "demo" if project == "main" else f"~{project}/demo"
        repository = farm.repository("demo", ARCH, project=project)
        assert f"/{place}/{ARCH}/os/" in repository.baseurl
        assert repository.version == 1
        assert farm.repository_versions("demo", ARCH, project=project)[0].packages == 2
        folder = settings.repositories_dir / place
        names = {path.name for path in folder.rglob("*.rpm") if "debug" not in path.name}
        made = (("libgreet", ARCH), ("libgreet-devel", ARCH), ("libgreet", "src"))
        assert names == {f"{name}-1.0-1{release}.{arch}.rpm" for name, arch in made}, project
        logs = {path.name for path in (folder / "logs").glob("[0-9]*")}
        assert logs == {str(one.id) for one in farm.builds(project=project, package="libgreet", limit=1)}


def test_a_root_sees_the_projects_that_are_named_and_no_other(farm: Farm, tmp_path: Path) -> None:
    alone = built(farm, "uses-libgreet", tmp_path, project="alone")
    assert alone.outcome is Outcome.UNRESOLVABLE
    assert "libgreet-devel" in (alone.reason or "")
    apps = built(farm, "uses-libgreet", tmp_path, project="apps")
    assert apps.outcome is Outcome.SUCCEEDED, apps.reason
    assert in_root(farm, apps) == [f"libgreet-devel-1.0-1.base.{ARCH}"]
    # The list that counts is that of the moment: a project that is taken off it reaches no root, retries included.
    farm.set_project("alone", builds_on=["other", "base"])
    farm.set_project("apps", builds_on=[])
    farm.retry(alone.id)
    assert farm.handle(alone.id).wait(timeout_s=WITHIN_S).outcome is Outcome.SUCCEEDED
    assert ".other." in in_root(farm, alone)[0]
    farm.retry(apps.id, "build", ARCH)
    assert farm.handle(apps.id).wait(timeout_s=WITHIN_S).outcome is Outcome.UNRESOLVABLE


def test_a_project_s_own_packages_go_first_and_lists_are_not_followed(farm: Farm, tmp_path: Path) -> None:
    farm.new_project("top", targets=["demo"], builds_on=["other"])
    farm.new_project("above", targets=["demo"], builds_on=["top"])
    # The own release is lower than that of the other project.
    assert built(farm, "libgreet", tmp_path, project="top", defines=[("dist", ".a")]).outcome is Outcome.SUCCEEDED
    top = built(farm, "uses-libgreet", tmp_path, project="top")
    assert top.outcome is Outcome.SUCCEEDED, top.reason
    assert ".a." in in_root(farm, top)[0]
    farm.new_project("over", targets=["demo"], builds_on=["above"])
    over = built(farm, "uses-libgreet", tmp_path, project="over")
    assert over.outcome is Outcome.UNRESOLVABLE, "over names above alone, and above names top"


def test_names_belong_to_the_project_and_not_to_one_member(farm: Farm, settings: Settings, tmp_path: Path) -> None:
    farm.grant("other", "ben", Role.PACKAGER)
    with Farm.connect(settings, actor=Actor(name="ben", roles=frozenset({Role.READER, Role.PACKAGER}), uid=0)) as ben:
        mine = built(ben, "libgreet", tmp_path, project="other", defines=[("dist", ".ben")])
        assert mine.outcome is Outcome.SUCCEEDED, mine.reason
        taken = built(ben, "libgreet", tmp_path, target="demo", defines=[("dist", ".ben")])
        assert (taken.outcome, "root published the source package libgreet" in (taken.reason or "")) == (
            Outcome.FAILED,
            True,
        )
    assert published(settings) == [f"libgreet-1.0-1.main.{ARCH}.rpm", f"libgreet-devel-1.0-1.main.{ARCH}.rpm"]


def test_the_packages_of_the_root_come_from_the_target_unless_the_project_names_them(
    farm: Farm, tmp_path: Path
) -> None:
    own = built(farm, "libgreet", tmp_path, project="roots", defines=[("dist", ".own")])
    assert own.outcome is Outcome.SUCCEEDED, own.reason
    plain = built(farm, "uses-libgreet", tmp_path, project="roots")
    assert plain.outcome is Outcome.SUCCEEDED, plain.reason
    assert ".main." in in_root(farm, plain)[0]
    farm.set_project("roots", root_packages=["libgreet", "libgreet-devel"])
    farm.retry(plain.id, "build", ARCH)
    assert farm.handle(plain.id).wait(timeout_s=WITHIN_S).outcome is Outcome.SUCCEEDED
    assert ".own." in in_root(farm, plain)[0]

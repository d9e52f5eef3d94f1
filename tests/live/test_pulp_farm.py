"""The whole farm with a real Pulp: packages of builds are published there with their logs, and installed from there."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import urlopen

import pytest

from deploy.demo.install import install, run_installed
from deploy.pulp.accounts import make_publisher
from deploy.pulp.local import LocalPulp
from farm import Farm
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.build import Build
from farm.model.outcome import Outcome
from farm.up.embedded import Embedded, running_farm
from tests.packages import make_srpm
from tests.pulp_server import pulp_settings

pytestmark = pytest.mark.live
WITHIN_S = 120.0
ARCH = Arch.X86_64
_ON_TOP = """
distribution = "Demo, on top of itself"
release = "1"
arches = ["x86_64"]
packages = ["demo-build", "libgreet-devel"]
[[repositories]]
name = "demo"
baseurl = "file://{data}/demo/distribution/{arch}"
gpgcheck = false
[[repositories]]
name = "built"
target = "demo"
gpgcheck = false
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path, pulp: LocalPulp) -> Settings:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    data = tmp_path_factory.mktemp("p")
    (data / "demo").mkdir()
    (data / "demo" / "distribution").symlink_to(demo_distribution)
    (data / "targets").mkdir()
    (data / "targets" / "on-top.toml").write_text(_ON_TOP)
    publisher = make_publisher(pulp)
    account = {"pulp_username": publisher.username, "pulp_password": publisher.password}
    return pulp_settings(pulp, data, owner="tester", targets=data / "targets", lease_s=3, retry_delay_s=0.2, **account)


@pytest.fixture(scope="module")
def embedded(settings: Settings) -> Iterator[Embedded]:
    with running_farm(settings, build_slots=2) as embedded:
        yield embedded


@pytest.fixture
def farm(settings: Settings, embedded: Embedded) -> Iterator[Farm]:
    embedded.check()
    with Farm.connect(settings) as farm:
        yield farm


def _build(farm: Farm, name: str, tmp_path: Path) -> Build:
    return farm.enqueue(srpm=make_srpm(name, tmp_path), target="demo", arches=[ARCH]).wait(timeout_s=WITHIN_S)


def _logs(farm: Farm, build: Build, path: str) -> bytes:
    """The files that Pulp's content app serves below the logs of a build."""
    base = farm.repository("demo", ARCH).baseurl.removesuffix(f"{ARCH}/os/current/")
    with urlopen(f"{base}logs/current/{build.id}/{path}", timeout=30) as answer:
        return bytes(answer.read())


def test_a_build_that_needs_another_is_built_from_pulp_and_installed_from_there(
    farm: Farm, settings: Settings, demo_distribution: Path, tmp_path: Path
) -> None:
    first = _build(farm, "libgreet", tmp_path)
    assert first.outcome is Outcome.SUCCEEDED, first.reason
    second = _build(farm, "uses-libgreet", tmp_path)
    assert second.outcome is Outcome.SUCCEEDED, second.reason

    provenance = json.loads(_logs(farm, second, f"build.{ARCH}.1/provenance.json"))
    (own,) = provenance["repositories"]
    assert own["url"] == farm.repository("demo", ARCH).baseurl.replace("/current/", f"/{own['version']}/")
    with urlopen(f"{own['url']}repodata/repomd.xml", timeout=30) as answer:
        assert answer.status == 200

    root = tmp_path / "installed" / "root"
    base = f"file://{demo_distribution}/{ARCH}"
    install(root, ["uses-libgreet"], {"demo": base, "built": farm.repository("demo", ARCH).baseurl}, arch=ARCH)
    assert run_installed(root, ["greet"]).strip()


def test_content_in_pulp_names_its_origin(farm: Farm, pulp: LocalPulp, tmp_path: Path) -> None:
    build = _build(farm, "hello-c", tmp_path)
    files = [file.artifact for file in farm.artifacts(build.id)]
    (made,) = [file for file in files if file.kind is ArtifactKind.RPM and file.name.startswith("hello-c-1")]
    found = pulp_get(pulp, f"content/rpm/packages/?pkgId={made.sha256}&fields=pulp_labels")
    labels = {"build": str(build.id), "arch": "x86_64", "attempt": f"{build.id}.build.{ARCH}.1"}
    assert found["results"][0]["pulp_labels"].items() >= labels.items()
    assert "batch" in found["results"][0]["pulp_labels"]


def test_the_log_of_a_failed_build_lands_in_pulp_and_no_package_does(farm: Farm, tmp_path: Path) -> None:
    build = _build(farm, "fails-check", tmp_path)
    assert build.outcome is Outcome.FAILED
    assert b"%check" in _logs(farm, build, f"build.{ARCH}.1/build.{ARCH}.log")
    with pytest.raises(HTTPError):
        _logs(farm, build, f"upload.{ARCH}.1/upload.log")


def test_the_log_of_a_failed_fetch_lands_in_pulp(farm: Farm) -> None:
    build = farm.enqueue(git="https://127.0.0.1:9/none.git", target="demo", arches=[ARCH]).wait(timeout_s=WITHIN_S)
    assert build.outcome is not Outcome.SUCCEEDED
    assert b"127.0.0.1:9" in _logs(farm, build, "fetch.1/fetch.log")


def test_roots_start_with_packages_built_here_if_the_target_says_so(
    farm: Farm, settings: Settings, tmp_path: Path
) -> None:
    """Its packages name libgreet-devel, which is nowhere but in Pulp."""
    assert _build(farm, "libgreet", tmp_path).outcome is Outcome.SUCCEEDED
    build = farm.enqueue(srpm=make_srpm("hello-noarch", tmp_path), target="on-top", arches=[ARCH])
    result = build.wait(timeout_s=WITHIN_S)
    assert result.outcome is Outcome.SUCCEEDED, result.reason
    (record,) = [file.artifact for file in farm.artifacts(result.id) if file.artifact.name == "root.json"][-1:]
    assert b"libgreet-devel" in farm.read(record)


def test_a_project_publishes_and_builds_in_pulp_by_itself(farm: Farm, tmp_path: Path) -> None:
    """Its packages have the names of the default project's, and another content."""
    assert _build(farm, "libgreet", tmp_path).outcome is Outcome.SUCCEEDED
    before = farm.repository("demo", ARCH)
    farm.new_project("perl", targets=["demo"])
    farm.new_project("apps", targets=["demo"], builds_on=["perl", "main"])
    asked = {"srpm": make_srpm("libgreet", tmp_path), "arches": [ARCH]}
    own = farm.enqueue(**asked, project="perl", defines=[("dist", ".perl")]).wait(timeout_s=WITHIN_S)
    assert own.outcome is Outcome.SUCCEEDED, own.reason
    repository = farm.repository("demo", ARCH, project="perl")
    assert "/~perl/demo/" in unquote(repository.baseurl)
    assert (repository.version, farm.repository("demo", ARCH)) == (1, before)
    asked["srpm"] = make_srpm("uses-libgreet", tmp_path)
    second = farm.enqueue(**asked, project="apps").wait(timeout_s=WITHIN_S)
    assert second.outcome is Outcome.SUCCEEDED, second.reason
    (record,) = [file.artifact for file in farm.artifacts(second.id) if file.artifact.name == "root.json"][-1:]
    assert b"libgreet-devel-0:1.0-1.perl" in farm.read(record).replace(b"devel-1.0", b"devel-0:1.0")
    provenance = next(file.artifact for file in farm.artifacts(second.id) if file.artifact.name == "provenance.json")
    names = [one["name"] for one in json.loads(farm.read(provenance))["repositories"]]
    assert names == [f"farm.perl-{ARCH}", f"farm-demo-{ARCH}"]


def test_upload_again_makes_no_version_and_no_publication(farm: Farm, pulp: LocalPulp, tmp_path: Path) -> None:
    build = _build(farm, "hello-noarch", tmp_path)
    before = farm.repository("demo", ARCH).version
    for _ in range(2):
        farm.retry(build.id, step="upload")
        assert farm.handle(build.id).wait(timeout_s=WITHIN_S).outcome is Outcome.SUCCEEDED
    assert farm.repository("demo", ARCH).version == before


def test_build_workers_know_no_credential_of_pulps(embedded: Embedded, settings: Settings) -> None:
    for name in ("source", "build", "flower"):
        environment = Path(f"/proc/{embedded.processes[name]}/environ").read_bytes()
        assert settings.pulp_password.encode() not in environment
    assert settings.pulp_password.encode() in Path(f"/proc/{embedded.processes['publish']}/environ").read_bytes()


def pulp_get(pulp: LocalPulp, path: str) -> dict[str, list[dict[str, dict[str, str]]]]:
    url = f"{pulp.url}/pulp/api/v3/{path}"
    argv = ["curl", "--silent", "--fail", "--max-time", "30", "--user", f"{pulp.username}:{pulp.password}", url]
    found = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    assert isinstance(found, dict)
    return found

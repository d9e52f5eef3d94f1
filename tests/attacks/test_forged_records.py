"""Records of a hostile build host, from which `farm shell` makes the root of an attempt again on a person's machine."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from farm.artifacts import open_store
from farm.config import Settings
from farm.errors import FarmError
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.local import ShellRequest, StoredArtifact
from farm.targets.load import find_target
from tests.packages import make_srpm
from workers.local.shell import shell

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="build roots need root")]


@dataclass(frozen=True, kw_only=True)
class Shell:
    """`farm shell` for the build step of a build whose host wrote these records."""

    settings: Settings
    folder: Path

    def run(self, root: object, provenance: object) -> str:
        """The error; empty where the shell opened."""
        records = [("root.json", root), ("provenance.json", provenance)]
        store = open_store(self.settings)
        srpm = store.put(make_srpm("hello-c", self.folder), name="hello-c.src.rpm", kind=ArtifactKind.SRPM)
        artifacts = [StoredArtifact(kind="srpm", arch=None, artifact=srpm)]
        for name, document in records:
            path = self.folder / name
            path.write_text(json.dumps(document))
            record = store.put(path, name=name, kind=ArtifactKind.RECORD)
            artifacts.append(StoredArtifact(kind="build", arch=Arch.X86_64, artifact=record))
        asked = ShellRequest(
            target=find_target(self.settings, "demo"),
            arch=Arch.X86_64,
            kind="build",
            attempt="1.build.x86_64.1",
            artifacts=tuple(artifacts),
            command=("true",),
        )
        try:
            code = shell(asked, self.settings, threading.Event())
        except FarmError as error:
            return str(error)
        assert code == 0
        return ""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Shell:
    data = tmp_path_factory.mktemp("f")
    (data / "demo").mkdir()
    (data / "demo/distribution").symlink_to(demo_distribution)
    return Shell(settings=Settings.from_env({"FARM_DATA": str(data)}), folder=tmp_path_factory.mktemp("records"))


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service of the person's machine, which no build host and no package reaches."""

    port: int
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def service() -> Iterator[Service]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Service(port=server.server_address[1], asked=asked)
        finally:
            server.shutdown()
            thread.join()


def _names(*names: str) -> list[dict[str, str]]:
    return [{"nevra": name, "digest": "00"} for name in names]


@pytest.mark.parametrize(
    "name",
    [
        "http://127.0.0.1:PORT/x-1-1.noarch.rpm",
        "--repofrompath=x,http://127.0.0.1:PORT",
        "--setopt=pluginpath=/mnt/root-1-1.noarch",
        "--noplugins-1-1.noarch",
        "*-1-1.noarch",
        "@core-1-1.noarch",
        "x-1-1.rpm",
        "",
    ],
)
def test_a_recorded_package_is_no_other_word_for_dnf(opened: Shell, service: Service, name: str) -> None:
    said = opened.run(_names("bash-1-1.x86_64", name.replace("PORT", str(service.port))), {})
    assert service.asked == []
    assert "which is no package" in said


def test_a_record_of_more_packages_than_a_command_line_takes(opened: Shell) -> None:
    assert "too many to install" in opened.run(_names(*(f"{'x' * 200}{n}-1-1.noarch" for n in range(6000))), {})


def test_a_recorded_address_is_not_asked_and_its_folder_not_shown(
    opened: Shell, service: Service, tmp_path: Path
) -> None:
    """Only the back end says where the farm's own repositories are."""
    urls = [f"http://127.0.0.1:{service.port}/r/", tmp_path.as_uri()]
    for number, url in enumerate(urls):
        pinned = [{"name": "farm-demo-x86_64", "url": url, "version": number}]
        assert opened.run(_names("demo-build-1-1.noarch"), {"repositories": pinned}) == ""
    assert service.asked == []

"""A builder that reports a package of a name that is its owner's, and stores one of another name under it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.outcome import Outcome
from farm.repositories import RepositoryKind, RepositoryName, open_repositories
from tests.rpms import make_rpm
from tests.unit.test_upload import context, work_for
from workers.core.context import Ended, StepContext
from workers.steps import upload

__all__ = ["context"]


def _reported_as(context: StepContext, path: Path, nevra: str) -> Artifact:
    return context.store.put(path, name="p.rpm", kind=ArtifactKind.RPM, identity=nevra)


@pytest.fixture(params=["name", "version", "epoch", "source", "no-package", "source-of-another"])
def lie(request: pytest.FixtureRequest, context: StepContext, tmp_path: Path) -> tuple[str, Artifact]:
    folder = tmp_path / "evil"
    folder.mkdir()
    (junk := folder / "junk").write_bytes(b"junk")
    makers: dict[str, Callable[[], tuple[Path, str]]] = {
        "name": lambda: (make_rpm(folder, "bash"), "hello-1-1.noarch"),
        "version": lambda: (make_rpm(folder, version="9"), "hello-1-1.noarch"),
        "epoch": lambda: (make_rpm(folder, epoch=9), "hello-1-1.noarch"),
        "source": lambda: (make_rpm(folder, arch="src"), "hello-1-1.noarch"),
        "no-package": lambda: (junk, "hello-1-1.noarch"),
        "source-of-another": lambda: (make_rpm(folder, "bash", arch="src"), "hello-1-1.src"),
    }
    path, nevra = makers[request.param]()
    return request.param, _reported_as(context, path, nevra)


def test_a_package_that_differs_from_its_report_is_not_published(
    context: StepContext, tmp_path: Path, lie: tuple[str, Artifact]
) -> None:
    what, artifact = lie
    work = work_for(context, tmp_path)
    changed = {"srpm": artifact} if what == "source-of-another" else {"rpms": (artifact,)}
    with pytest.raises(Ended) as ended:
        upload.run(replace(work, input=replace(work.input, **changed)), context)
    assert ended.value.outcome is Outcome.FAILED
    assert "refused by the repository" in ended.value.reason
    for name in (
        RepositoryName(target="demo", kind=RepositoryKind.SOURCE),
        RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64),
    ):
        assert open_repositories(context.settings).current(name) == 0

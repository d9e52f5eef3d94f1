"""`farm build --wait` names one package to install: that of the source's name, and never one for debuggers alone."""

import pytest

from farm.cli.follow import main_package
from farm.formats.rpm.format import RpmFormat
from farm.model.artifact import Artifact, ArtifactKind


def _artifact(identity: str) -> Artifact:
    return Artifact(name="x.rpm", kind=ArtifactKind.RPM, sha256="0" * 64, size_bytes=1, identity=identity)


@pytest.mark.parametrize(
    ("source", "identities", "found"),
    [
        ("hello-1-1.src", ["hello-doc-1-1.noarch", "hello-1-1.x86_64"], "hello"),
        ("hello-2:1-1.src", ["libhello-2:1-1.x86_64", "hello-tools-2:1-1.x86_64"], "hello-tools"),
        ("kernel-6-1.src", ["kernel-debuginfo-common-x86_64-6-1.x86_64", "kernel-core-6-1.x86_64"], "kernel-core"),
        ("hello-1-1.src", ["hello-debuginfo-1-1.x86_64"], "hello"),
        (None, ["b-1-1.x86_64", "a-1-1.x86_64"], "a"),
        ("hello-1-1.src", ["no identity"], "hello"),
        (None, [], "guessed"),
    ],
)
def test_one_package_is_named(source: str | None, identities: list[str], found: str) -> None:
    packages = [_artifact(identity) for identity in identities]
    assert main_package(source, "guessed", packages, RpmFormat()) == found

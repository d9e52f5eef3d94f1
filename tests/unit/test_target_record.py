"""The record of a target: the same bytes for the same target, and the same target from the bytes."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from farm.artifacts.directory import DirectoryStore
from farm.config import Settings
from farm.errors import BadTarget, NotFound
from farm.model.artifact import ArtifactKind
from farm.targets.load import load_targets
from farm.targets.record import digest_of, read_record, record_target, to_record


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def stored(store: DirectoryStore, tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "given"
    path.write_bytes(content)
    return store.put(path, name="a.target.json", kind=ArtifactKind.RECORD).sha256


def test_every_shipped_target_comes_back_as_it_was(store: DirectoryStore, tmp_path: Path) -> None:
    targets = load_targets(Settings(data=tmp_path))
    assert len(targets) > 3
    for target in targets.values():
        artifact = record_target(target, store)
        assert (artifact.kind, artifact.sha256) == (ArtifactKind.RECORD, digest_of(target))
        assert artifact == record_target(target, store)
        assert read_record(artifact.sha256, store) == target


def test_a_record_is_canonical_and_tells_targets_apart(tmp_path: Path) -> None:
    target = load_targets(Settings(data=tmp_path))["demo"]
    content = to_record(target)
    assert digest_of(target) == hashlib.sha256(content).hexdigest()
    document = json.loads(content)
    assert document["format"] == 1
    assert content == json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert digest_of(replace(target, table={"macros": [["dist", ".other"]]})) != digest_of(target)


def test_a_record_of_an_earlier_farm_lacks_the_fields_added_since(store: DirectoryStore, tmp_path: Path) -> None:
    target = load_targets(Settings(data=tmp_path))["demo"]
    document = json.loads(to_record(target))
    del document["target"]["user_namespaces"]
    document["target"]["of_a_later_farm"] = 1
    assert read_record(stored(store, tmp_path, json.dumps(document).encode()), store) == target


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b'{"format":1}', b'{"format":1,"target":{"name":1}}', b"[" * 100_000, b" " * (2**20 + 1)],
    ids=["empty", "list", "no text", "no target", "bad target", "nested", "large"],
)
def test_a_malformed_record_is_refused(store: DirectoryStore, tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadTarget):
        read_record(stored(store, tmp_path, content), store)


def test_a_record_of_a_later_form_is_refused(store: DirectoryStore, tmp_path: Path) -> None:
    document = json.loads(to_record(load_targets(Settings(data=tmp_path))["demo"])) | {"format": 2}
    with pytest.raises(BadTarget, match="format 2"):
        read_record(stored(store, tmp_path, json.dumps(document).encode()), store)


def test_a_record_that_is_not_kept_is_not_found(store: DirectoryStore) -> None:
    with pytest.raises(NotFound):
        read_record("0" * 64, store)

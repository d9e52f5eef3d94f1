"""The plan of an installation: read from a pipe to which hostile scriptlets write too, after dnf's line."""

import json
import os
from pathlib import Path

import pytest

from workers.formats.rpm.filler import applied, in_order, provided
from workers.formats.rpm.plan import BadPlan, PlanPipe, parse, plan_pipe
from workers.roots.listing import Listing, is_sealed, read_once, write_once
from workers.roots.root import RootPackage

_EMPTY: dict[str, object] = {"added": [], "removed": []}
_ONE: dict[str, object] = {"added": [{"nevra": "evil-1:2-3.noarch", "digest": "abc"}], "removed": ["old-1-1.noarch"]}


def _line(document: object) -> bytes:
    return json.dumps(document).encode() + b"\n"


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.write(descriptor, data)
    os.close(descriptor)


def _took(path: Path, *parts: bytes, limit_bytes: int = 2**20) -> PlanPipe:
    with plan_pipe(path, limit_bytes=limit_bytes) as pipe:
        for part in parts:
            _write(path, part)
            pipe.take()
    return pipe


def test_text_that_a_scriptlet_writes_after_the_line_is_not_read(tmp_path: Path) -> None:
    line = _line(_ONE)
    pipe = _took(tmp_path / "plan", line[:10], line[10:] + _line(_EMPTY)[:5], _line(_EMPTY), b"x" * 100_000)
    plan = pipe.plan()
    assert plan is not None
    assert plan.packages == (RootPackage(identity="evil-1:2-3.noarch", digest="abc"),)
    assert pipe.has_begun


def test_a_pipe_that_is_replaced_by_a_link_or_a_file_changes_nothing(tmp_path: Path) -> None:
    path, line = tmp_path / "plan", _line(_ONE)
    with plan_pipe(path, limit_bytes=2**20) as pipe:
        _write(path, line)
        path.unlink()
        path.symlink_to("/dev/zero")
        pipe.take()
    assert pipe.plan() == parse(line[:-1])


def test_dnf_has_not_begun_without_a_plan_or_with_an_empty_or_refused_one(tmp_path: Path) -> None:
    assert not _took(tmp_path / "none").has_begun
    assert _took(tmp_path / "half", _line(_ONE)[:-1]).plan() is None
    assert not _took(tmp_path / "empty", _line(_EMPTY)).has_begun
    assert not _took(tmp_path / "refused", _line({**_EMPTY, "refused": "bad header"})).has_begun
    assert _took(tmp_path / "removes", _line({"added": [], "removed": ["old-1-1.noarch"]})).has_begun


def test_a_plan_beyond_its_limit_is_read_to_its_end_and_refused(tmp_path: Path) -> None:
    pipe = _took(tmp_path / "plan", *[b"x" * 1000] * 5, b"\n", limit_bytes=2000)
    assert pipe.has_begun
    with pytest.raises(BadPlan, match="more than 2000 bytes"):
        pipe.plan()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "cannot be read"),
        ({"added": [{"nevra": 1, "digest": ""}], "removed": []}, "cannot be read"),
        ({"added": [{"nevra": "nonsense", "digest": ""}], "removed": []}, "is not the name of a package"),
        ({"added": [{"nevra": "a\x1b-1-1.noarch", "digest": ""}], "removed": []}, "cannot be printed"),
        ({"added": [{"nevra": "a-1-1.noarch", "digest": "d" * 200}], "removed": []}, "digest"),
        ({"added": [{"nevra": "a-1-1.noarch", "digest": "d"}] * 20_001, "removed": []}, "more than 20000 packages"),
    ],
)
def test_a_plan_that_cannot_be_recorded_is_refused(document: object, words: str) -> None:
    with pytest.raises(BadPlan, match=words):
        parse(_line(document))


def test_a_layer_is_its_template_with_its_own_plan_applied(tmp_path: Path) -> None:
    given = {"name": "foo", "op": "=", "evr": "1:2-3"}
    base = {"nevra": "bash-5.2-1.x86_64", "digest": "abc", "provides": [given], "files": ["/usr/bin/a b", "/usr/bin/c"]}
    old = {"nevra": "old-1-1.noarch", "digest": "d"}
    plan = parse(_line({"added": [old, base], "removed": []}))
    template = in_order(plan.packages)
    assert [one.identity for one in template] == ["bash-5.2-1.x86_64", "old-1-1.noarch"]
    given_by_template = provided(plan)
    assert given_by_template.meets("foo >= 1:2")
    assert given_by_template.meets("/usr/bin/c")
    assert not given_by_template.meets("bar")
    layer = applied(template, parse(_line(_ONE)))
    assert [one.identity for one in layer] == ["bash-5.2-1.x86_64", "evil-1:2-3.noarch"]
    kept: list[object] = [Listing(packages=layer, is_sealed=True), given_by_template]
    for number, value in enumerate(kept):
        path = tmp_path / str(number)
        write_once(path, value)
        assert read_once(path, type(value)) == value
        with pytest.raises(FileExistsError):
            write_once(path, value)


def test_a_package_that_is_installed_again_is_recorded_with_its_new_digest() -> None:
    old, new = ({"nevra": "a-1-1.noarch", "digest": digest} for digest in "xy")
    base = parse(_line({"added": [old], "removed": []})).packages
    again = parse(_line({"added": [new], "removed": ["a-1-1.noarch"]}))
    assert applied(base, again) == (RootPackage(identity="a-1-1.noarch", digest="y"),)


def test_a_root_with_a_folder_for_all_is_not_sealed_and_no_link_is_followed(tmp_path: Path) -> None:
    root, open_one = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "tmp", root / "var/tmp", open_one):
        folder.mkdir(parents=True)
        folder.chmod(0o1777)
    (root / "link").symlink_to(open_one)
    assert is_sealed(root)
    (root / "var/lib/a\nb").mkdir(parents=True)
    (root / "var/lib/a\nb").chmod(0o777)
    assert not is_sealed(root)

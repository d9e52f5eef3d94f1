"""The tiny packages become source packages and git repositories by the real tools."""

from pathlib import Path

import pytest

from tests.packages import commit_all, git, make_git, make_srpm, package_names

pytestmark = pytest.mark.live

#: rpmbuild refuses these while it reads the spec, which is what they are for.
REFUSED = {"does-not-parse": "line 7: Unknown tag", "missing-source": "never-uploaded-1.0.tar.gz"}


@pytest.mark.parametrize("name", [name for name in package_names() if name not in REFUSED])
def test_each_package_becomes_a_src_rpm_and_the_same_bytes_twice(tmp_path: Path, name: str) -> None:
    first = make_srpm(name, tmp_path)
    assert first == tmp_path / f"{name}-1.0-1.src.rpm"
    content = first.read_bytes()
    assert make_srpm(name, tmp_path).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_spec_is_told_in_rpmbuild_s_words(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuntimeError, match=REFUSED[name]):
        make_srpm(name, tmp_path)


def test_the_same_files_make_the_same_commit(tmp_path: Path) -> None:
    first, second = (make_git("hello-c", tmp_path / folder) for folder in ("a", "b"))
    assert git(first, "rev-parse", "main") == git(second, "rev-parse", "main")
    (first / "hello.c").write_text("int main(void) { return 1; }\n")
    assert commit_all(first, "Break it") != git(second, "rev-parse", "main")

"""Releases and changelogs from history, against rpmautospec itself on the same repositories. Needs root."""

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from farm.artifacts import open_store
from farm.errors import FarmError
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.source import Source, SourceKind
from farm.model.work import AnyResult
from farm.steps.fetch import FetchInput, FetchResult
from tests.artifacts import content_of, path_of
from tests.fetching import repository
from tests.line import LIMITS, Line
from tests.packages import COMMIT_AT, commit_all, git

pytestmark = pytest.mark.live

_SPEC = """%global base 1
Name: auto
Version: {version}
Release: {release}
Summary: s
License: MIT
BuildArch: noarch
%description
s
%prep
%files
{changelog}"""
_CHANGELOG = "%changelog\n%autochangelog\n"


def _spec(version: str = "1.0", release: str = "%autorelease", changelog: str = _CHANGELOG) -> bytes:
    return _SPEC.format(version=version, release=release, changelog=changelog).encode()


class _Repository:
    """A repository in which each commit is a day after the one before."""

    def __init__(self, folder: Path, **files: bytes) -> None:
        self.folder = repository(folder, {"auto.spec": files.get("spec", _spec())})
        self.days = 0

    def commit(self, message: str, **files: bytes | None) -> str:
        for name, content in files.items():
            path = self.folder / (f"auto.{name}" if name == "spec" else name)
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
        git(self.folder, "add", "--all")
        self.days += 1
        words = ("commit", "--quiet", "--allow-empty", "--message", message)
        git(self.folder, *words, commit_at=COMMIT_AT + timedelta(days=self.days))
        return git(self.folder, "rev-parse", "HEAD")

    def expected(self) -> bytes:
        """The spec as rpmautospec makes it of the work tree."""
        target = self.folder.parent / "expected.spec"
        target.write_bytes((self.folder / "auto.spec").read_bytes())
        script = "import sys, rpmautospec; rpmautospec.process_distgit(sys.argv[1], sys.argv[2], enable_caching=False)"
        subprocess.run([sys.executable, "-c", script, self.folder / "auto.spec", target], check=True)
        return target.read_bytes()


def _fetched(line: Line, folder: Path, options: BuildOptions = BuildOptions(), **where: str) -> AnyResult:  # noqa: B008
    source = Source(kind=SourceKind.GIT, url=f"file://{folder}", reader_uid=0, **where)  # type: ignore[arg-type]
    return line._step("fetch", FetchInput(source=source), options, LIMITS)


def _made(line: Line, result: AnyResult, name: str = "auto.spec") -> bytes:
    import tarfile

    from farm.artifacts.directory import DirectoryStore

    assert isinstance(result.output, FetchResult), result.reason
    with tarfile.open(path_of(DirectoryStore(line.settings.artifacts), result.output.archive.sha256)) as tar:
        found = tar.extractfile(name)
        assert found is not None
        return found.read()


def _plain(repo: _Repository) -> None:
    for number in range(3):
        repo.commit(f"Change {number}\n\n- and more\n- of 100% it", notes=str(number).encode())


def _versions(repo: _Repository) -> None:
    repo.commit("Go on", notes=b"1")
    repo.commit("Update", spec=_spec("2.0"))
    repo.commit("Rebuild [skip changelog]\n\n[skip changelog]", notes=b"2")
    repo.commit("Again", notes=b"3")


def _bumped(repo: _Repository) -> None:
    repo.commit("Jump\n\n[bump release: 7]", notes=b"1")
    repo.commit("On", spec=_spec(release="%autorelease -b 10 -e rc1 -s 2026git"))
    repo.commit("Before", spec=_spec(release="%{autorelease -p}"))


def _broken(repo: _Repository) -> None:
    repo.commit("Break", spec=b"%if\nnonsense")
    repo.commit("Mend", spec=_spec())


def _file(repo: _Repository) -> None:
    repo.commit("Convert", changelog=b"* Thu Jan 01 2026 A <a@b.c> - 0.1-1\n- old\n")
    repo.commit("After", notes=b"1")


def _merged(repo: _Repository) -> None:
    git(repo.folder, "switch", "--quiet", "--create", "side", commit_at=COMMIT_AT)
    repo.commit("Aside", notes=b"aside")
    git(repo.folder, "switch", "--quiet", "main")
    repo.commit("Straight", other=b"straight")
    git(repo.folder, "merge", "--quiet", "--no-ff", "--message=Merge", "side", commit_at=COMMIT_AT + timedelta(days=9))


def _included(repo: _Repository) -> None:
    text = _spec("%{upstream}").replace(b"%global base 1", b"%{load:%{_sourcedir}/version.inc}")
    repo.commit("Include", spec=text, **{"version.inc": b"%upstream 3.0\n"})
    repo.commit("Same", notes=b"1")
    repo.commit("New", **{"version.inc": b"%upstream 4.0\n"})
    repo.commit("Last", notes=b"2")


@pytest.mark.parametrize("story", [_plain, _versions, _bumped, _broken, _file, _merged, _included])
def test_the_spec_is_as_rpmautospec_makes_it(line: Line, tmp_path: Path, story: Callable[[_Repository], None]) -> None:
    repo = _Repository(tmp_path / "repo")
    story(repo)
    made = _made(line, _fetched(line, repo.folder))
    assert made == repo.expected()
    assert b"%define autorelease" in made


@pytest.mark.parametrize("changelog", ["", "%changelog\n* Thu Jan 01 2026 A <a@b.c> - 0.1-1\n- own\n"])
def test_a_changelog_is_made_where_there_is_none_and_an_own_one_stays(
    line: Line, tmp_path: Path, changelog: str
) -> None:
    repo = _Repository(tmp_path / "repo", spec=_spec(changelog=changelog))
    repo.commit("Second", notes=b"2")
    made = _made(line, _fetched(line, repo.folder))
    assert made == repo.expected()
    assert (b"- own" in made) is bool(changelog)


def test_history_is_fetched_as_far_as_the_rules_need_it_and_no_farther(line: Line, tmp_path: Path) -> None:
    repo = _Repository(tmp_path / "repo", spec=_spec(changelog="%changelog\n"))
    for number in range(70):
        repo.commit(f"Change {number}")
    made = _made(line, _fetched(line, repo.folder))
    assert b"release_number = 71;" in made
    assert b"up to 50 commits" in line.log
    assert b"up to 500 commits" in line.log
    repo.commit("Update", spec=_spec("2.0", changelog="%changelog\n"))
    repo.commit("Next")
    assert b"release_number = 2;" in _made(line, _fetched(line, repo.folder))
    assert b"up to 500 commits" not in line.log


def test_a_spec_that_states_its_release_needs_no_history(line: Line, tmp_path: Path) -> None:
    own = b"%define autorelease 5\n" + _spec(changelog="")
    for number, text in enumerate((_spec(release="1", changelog=""), own)):
        repo = _Repository(tmp_path / f"repo{number}", spec=text)
        assert _made(line, _fetched(line, repo.folder)) == text
        assert b"commits of" not in line.log
        assert b"phase versions" not in line.log


def test_a_shallow_clone_is_told_what_it_lacks(line: Line, tmp_path: Path) -> None:
    repo = _Repository(tmp_path / "repo")
    repo.commit("Second", notes=b"2")
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repo.folder}", "clone")
    result = _fetched(line, tmp_path / "clone")
    assert result.outcome is Outcome.FAILED
    assert "is a shallow clone" in (result.reason or "")
    assert "git fetch --unshallow" in (result.reason or "")


def test_a_folder_of_a_repository_has_the_release_of_the_repositorys_commits(line: Line, tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo", {"pkg/auto.spec": _spec(), "other": b"1"})
    (folder / "other").write_bytes(b"2")
    commit_all(folder, "Elsewhere")
    made = _made(line, _fetched(line, folder, subdir="pkg"))
    assert b"release_number = 2;" in made


def test_a_spec_that_rpm_cannot_read_fails_with_rpms_own_words(line: Line, tmp_path: Path) -> None:
    repo = _Repository(tmp_path / "repo", spec=b"%if\n" + _spec())
    result = _fetched(line, repo.folder)
    assert (result.outcome, result.reason) == (Outcome.FAILED, "line 1: Unknown tag: %if")
    assert b"rpm cannot read the spec" in line.log


def test_a_number_of_thousands_of_digits_is_the_packages_fault(line: Line, tmp_path: Path) -> None:
    repo = _Repository(tmp_path / "repo")
    repo.commit(f"Bump\n\n[bump release: {'9' * 5000}]")
    result = _fetched(line, repo.folder)
    assert result.outcome is Outcome.FAILED
    assert "rpmautospec's rules give no release" in (result.reason or "")


def test_each_commit_has_its_own_release_whatever_fallback_there_is_and_the_packages_have_it(
    line: Line, tmp_path: Path
) -> None:
    """A distribution's fallback is a macro `autorelease`, given here as an option of the build."""
    options = BuildOptions(defines=(("autorelease", "1%{?dist}"),))
    repo = _Repository(tmp_path / "repo", spec=_spec(changelog=""))
    found = []
    for number in (1, 2):
        source = Source(kind=SourceKind.GIT, url=f"file://{repo.folder}", reader_uid=0)
        result = line.run(source, options, LIMITS)
        assert result.outcome is Outcome.SUCCEEDED, result.reason
        found.append(next(one.identity for one in result.artifacts if one.identity))
        repo.commit(f"Change {number}")
    assert found == ["auto-1.0-1.demo1.noarch", "auto-1.0-2.demo1.noarch"]


def test_the_same_commit_gives_the_same_source_package(line: Line, tmp_path: Path) -> None:
    repo = _Repository(tmp_path / "repo")
    repo.commit("Second", notes=b"2")
    first, second = (_fetched(line, repo.folder).output for _ in range(2))
    assert isinstance(first, FetchResult)
    assert isinstance(second, FetchResult)
    assert first.archive == second.archive


def test_what_a_past_spec_runs_runs_in_the_root_without_network(line: Line, tmp_path: Path) -> None:
    mark = tmp_path / "ran-on-the-host"
    evil = f"%(touch {mark}; id -u > /builddir/out/who)%global base 1".encode()
    repo = _Repository(tmp_path / "repo", spec=_spec().replace(b"%global base 1", evil))
    repo.commit("Clean", spec=_spec(), notes=b"2")
    assert b"release_number = 2;" in _made(line, _fetched(line, repo.folder))
    assert not mark.exists()


def test_past_specs_are_read_in_a_root_of_the_arch_that_is_asked_for(line: Line, tmp_path: Path) -> None:
    """The target's repositories are pinned for this arch alone. No root of it can be made here."""
    repo = _Repository(tmp_path / "repo")
    source = Source(kind=SourceKind.GIT, url=f"file://{repo.folder}", reader_uid=0)
    with pytest.raises(FarmError) as raised:
        line._step("fetch", FetchInput(source=source, arch=Arch.PPC64LE), BuildOptions(), LIMITS)
    (log,) = (one for one in raised.value.artifacts if one.kind is ArtifactKind.LOG)
    text = content_of(open_store(line.settings), log.sha256)
    assert b"the spec uses %autorelease" in text
    assert b"phase versions" not in text

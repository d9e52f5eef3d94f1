"""mock's exit codes, each with the farm's verdict."""

from contextlib import suppress

import pytest

from farm.errors import DiskFull, HostUnfit, NetworkTrouble, RootTrouble
from farm.model.outcome import Outcome
from workers.formats.rpm.mock.exit_codes import EXIT_CODES, Said, judge

_BUILD = b"error: Bad exit status from /var/tmp/rpm-tmp.x (%build)\n"
_BUILDDEP = b"""ERROR: Command failed:
 # /usr/bin/dnf builddep
No matching package to install: 'libfoo-devel >= 2'
No matching package to install: 'bar'
Not all dependencies satisfied
"""


def test_done_is_a_success() -> None:
    assert judge(0, Said()).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("code", [1, 10, 139, 77])
def test_once_rpmbuild_has_spoken_its_failure_is_the_packages_and_the_log_has_the_reason(code: int) -> None:
    verdict = judge(code, Said(output=b"ERROR: Command failed", build_log=_BUILD))
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, None)


@pytest.mark.parametrize("code", [10, 40])
def test_a_failure_without_a_build_log_says_what_the_code_means(code: int) -> None:
    verdict = judge(code, Said())
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, EXIT_CODES[code][1])


@pytest.mark.parametrize("code", [1, 4, 7, 20, 25, 50, 60, 65, 90, 110, 129, 141, 143, 99])
def test_without_a_word_of_rpmbuild_it_is_the_roots_trouble(code: int) -> None:
    with pytest.raises(RootTrouble) as caught:
        judge(code, Said(output=b"INFO: x\nERROR: what mock says\n"))
    assert str(caught.value).endswith(": ERROR: what mock says")


@pytest.mark.parametrize("code", [2, 3, 5, 6, 70, 80])
def test_a_host_that_cannot_run_mock_is_unfit(code: int) -> None:
    with pytest.raises(HostUnfit):
        judge(code, Said())


def test_a_timeout_is_one() -> None:
    said = Said(output=b"ERROR: Timeout(5) expired for command:\n # rpmbuild", build_log=b"+ make\n")
    assert judge(11, said).outcome is Outcome.TIMED_OUT


def test_rpmbuilds_own_eleven_is_no_timeout_but_names_the_missing_packages() -> None:
    log = b"error: Failed build dependencies:\n\tpython3dist(x) >= 1 is needed by y-1-1.noarch\n"
    verdict = judge(11, Said(output=b"ERROR: Command failed", build_log=log))
    assert (verdict.outcome, verdict.reason) == (Outcome.UNRESOLVABLE, "nothing provides python3dist(x) >= 1")


def test_each_requirement_without_a_provider_is_named_once() -> None:
    verdict = judge(30, Said(output=_BUILDDEP, root_log=b"DEBUG util.py:459:  " + _BUILDDEP))
    assert (verdict.outcome, verdict.reason) == (Outcome.UNRESOLVABLE, "nothing provides libfoo-devel >= 2, bar")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            b" Problem: nothing provides foo >= 2 needed by bar-1-1.x86_64",
            "nothing provides foo >= 2 needed by bar-1-1.x86_64",
        ),
        (
            b" Problem: conflicting requests\n  - package foo-1-1.noarch is filtered out by modular filtering",
            "package foo-1-1.noarch is filtered out by modular filtering",
        ),
        (b"  - nothing provides requested (a or b)", "nothing provides (a or b)"),
        (b"No match for argument: baz", "nothing provides baz"),
        (b"No package found for old-yum", "nothing provides old-yum"),
        (
            b" Problem: package a-1 conflicts with b provided by b-1",
            "cannot be installed together: package a-1 conflicts with b provided by b-1",
        ),
    ],
)
def test_the_package_managers_ways_to_say_it(line: bytes, reason: str) -> None:
    verdict = judge(30, Said(output=b"ERROR: Command failed:\n" + line + b"\n"))
    assert (verdict.outcome, verdict.reason) == (Outcome.UNRESOLVABLE, reason)


def test_many_missing_packages_are_counted_and_odd_names_escaped() -> None:
    lines = b"".join(b"No match for argument: p%d\x1b[31m\n" % number for number in range(9))
    reason = judge(30, Said(output=lines)).reason or ""
    assert reason.startswith("nothing provides p0\\x1b[31m, p1")
    assert reason.endswith(" and 4 more")


@pytest.mark.parametrize(
    "words",
    [
        b"Error: Failed to download metadata for repo 'baseos': Cannot prepare internal mirrorlist",
        b"Curl error (6): Couldn't resolve host name for https://mirror.example.org/",
        b"[MIRROR] x.rpm: Status code: 503\nError: Error downloading packages:",
    ],
)
@pytest.mark.parametrize("code", [20, 30, 90])
def test_a_mirror_that_is_away_is_the_networks_trouble(code: int, words: bytes) -> None:
    with pytest.raises(NetworkTrouble):
        judge(code, Said(output=words, root_log=b"No matching package to install: 'libfoo'\n"))


def test_any_other_failure_of_the_package_manager_is_the_roots_trouble() -> None:
    with pytest.raises(RootTrouble):
        judge(30, Said(output=b"Error: Transaction test error:\n  file /usr/bin/x conflicts"))


def test_a_full_disk_is_said_as_such() -> None:
    with pytest.raises(DiskFull):
        judge(20, Said(root_log=b"OSError: [Errno 28] No space left on device"))


def test_output_of_a_recipe_cannot_pass_for_the_farms_trouble() -> None:
    words = b"Curl error (6): Could not resolve host\nNo space left on device\n"
    verdict = judge(1, Said(output=words, build_log=words))
    assert verdict.outcome is Outcome.FAILED
    with pytest.raises(RootTrouble):
        judge(30, Said(output=words, build_log=words))


def test_a_spec_for_other_arches_is_excluded_and_no_failure() -> None:
    verdict = judge(1, Said(build_log=b"error: Architecture is not included: x86_64\n"))
    assert (verdict.outcome, verdict.reason) == (Outcome.EXCLUDED, "Architecture is not included: x86_64")


@pytest.mark.parametrize("before", [b"Executing(%check): /bin/sh -e /var/tmp/rpm-tmp.x\n", b"ok\n" * 10_000])
def test_a_recipe_that_prints_that_its_arch_is_excluded_failed(before: bytes) -> None:
    verdict = judge(10, Said(build_log=before + b"error: Architecture is not included: x86_64\n"))
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, None)


@pytest.mark.parametrize("code", EXIT_CODES)
@pytest.mark.parametrize("said", [Said(), Said(output=b"x"), Said(build_log=_BUILD)])
def test_every_listed_code_has_an_end_that_the_scheduler_knows(code: int, said: Said) -> None:
    """Trouble is one of those that may be tried again, and everything else is an outcome."""
    with suppress(RootTrouble, HostUnfit):
        assert judge(code, said).outcome in set(Outcome)


def test_a_name_in_bold_is_the_same_name() -> None:
    said = Said(root_log=b"No match for argument: \x1b[1mfoo\x1b[m\x0f\nNo matching package to install: 'foo'\n")
    assert judge(30, said).reason == "nothing provides foo"

"""The tiny packages say what they are for, and are found by name."""

import pytest

from tests.packages import DATA, package_dir, package_names


@pytest.mark.parametrize("name", package_names())
def test_each_spec_begins_with_the_sentence_that_it_tests(name: str) -> None:
    lines = (package_dir(name) / f"{name}.spec").read_bytes().decode("latin-1").splitlines()
    assert lines[0].startswith("# ")
    assert lines[0].endswith(".")
    assert f"Name:           {name}" in lines


def test_folders_without_a_spec_of_their_name_are_the_ones_that_are_refused() -> None:
    others = {folder.name for folder in DATA.iterdir() if any(folder.iterdir())} - set(package_names())
    assert others - {"logs", "farm-0006", "reasons"} == {"no-spec", "two-specs"}


def test_an_unknown_package_is_answered_with_the_known_ones() -> None:
    with pytest.raises(FileNotFoundError, match=r"no package 'nope'; it has .*hello-c"):
        package_dir("nope")

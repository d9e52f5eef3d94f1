"""The recipes of the demo, and the files that are made of them without any tool."""

from pathlib import Path

from deploy.demo.recipes import RECIPES, Kind, Upstream
from deploy.demo.sources import PACKAGES, manifest_entry, pack


def test_every_recipe_has_its_spec_and_its_source() -> None:
    for recipe in RECIPES:
        spec = (PACKAGES / recipe.name / f"{recipe.name}.spec").read_text()
        assert f"Name: {recipe.name}\nVersion: {recipe.version}\n" in spec
        is_ours = (PACKAGES / recipe.name / f"{recipe.name}-{recipe.version}").is_dir()
        assert is_ours == (recipe.upstream is Upstream.OURS)


def test_packing_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "x-1.0"
    folder.mkdir()
    (folder / "file").write_text("text")
    before = pack(folder)
    (folder / "file").touch()
    (folder / "file").chmod(0o600)
    assert pack(folder) == before


def test_the_manifest_says_where_each_source_is_and_how_it_ends(tmp_path: Path) -> None:
    entries = [manifest_entry(recipe, order=n, place=tmp_path) for n, recipe in enumerate(RECIPES)]
    assert [entry["expected"] for entry in entries].count("failed") == 1
    for recipe, entry in zip(RECIPES, entries, strict=True):
        assert (entry["url"] is None) == (recipe.kind is Kind.SRPM)
        assert (entry["path"] is None) == (recipe.kind is Kind.GIT)

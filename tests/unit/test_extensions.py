"""Modules that FARM_EXTENSIONS names: one that cannot be imported is named each time that it is asked for."""

from pathlib import Path

import pytest

from farm.errors import BadSettings
from farm.extensions import load_extensions


@pytest.mark.parametrize("content", [None, "import no_such_module", "raise ValueError('taken already')", "def"])
def test_a_module_that_cannot_be_imported_is_named_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "odd_extension.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("FARM_EXTENSIONS", "odd_extension")
    for _ in range(2):
        with pytest.raises(BadSettings, match="FARM_EXTENSIONS names odd_extension, which cannot be imported"):
            load_extensions()


def test_without_the_setting_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARM_EXTENSIONS", " , ")
    load_extensions()

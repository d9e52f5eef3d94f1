"""Modules that add to the farm, such as step types.

FARM_EXTENSIONS names them, with commas between, and each process of the farm imports them once.
"""

import importlib

from farm.config import extension_names
from farm.errors import BadSettings

_loaded: set[str] = set()


def load_extensions() -> None:
    """Import the extensions that were not imported yet. Raises BadSettings for one that cannot be imported."""
    for name in extension_names():
        if name in _loaded:
            continue
        _loaded.add(name)  # before the import: an extension may ask for step types itself
        try:
            importlib.import_module(name)
        except Exception as error:  # a module can fail in any way, and the setting names it
            _loaded.discard(name)
            raise BadSettings(f"FARM_EXTENSIONS names {name}, which cannot be imported: {error}") from error

"""Every error has a code and an exit code of its own, and says something true about itself."""

import importlib
import pkgutil
import re
from collections import Counter

import farm
import workers
from farm.errors import OUTCOME_EXIT_CODES, FarmError
from farm.model.outcome import Outcome

#: Run by alembic, and by the host's dnf with the host's Python.
_FOREIGN = re.compile(r"\.migrations|\.dnf_plugins")


def _all_errors() -> list[type[FarmError]]:
    for package in (farm, workers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__") and not _FOREIGN.search(module.name):
                importlib.import_module(module.name)
    found, todo = [], [FarmError]
    while todo:
        error = todo.pop()
        found.append(error)
        todo += error.__subclasses__()
    return found


def test_codes_and_exit_codes_are_unique() -> None:
    errors = _all_errors()
    codes = Counter(error.code for error in errors)
    exits = Counter(error.exit_code for error in errors) + Counter(set(OUTCOME_EXIT_CODES.values()))
    assert [code for code, count in codes.items() if count > 1] == []
    assert [code for code, count in exits.items() if count > 1] == []
    assert 2 not in exits, "2 is bad usage"


def test_every_error_has_a_sentence() -> None:
    for error in _all_errors():
        assert "code" in vars(error), f"{error.__name__} shares its parent's code"
        assert error.__doc__, f"{error.__name__} says nothing"
        assert error.__doc__.split("\n")[0].endswith("."), error.__name__


def test_every_outcome_has_an_exit_code() -> None:
    assert set(OUTCOME_EXIT_CODES) == set(Outcome)

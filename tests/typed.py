"""Commands of `farm`, typed in the test's own process at a farm without a scheduler or workers."""

import json

from typer.testing import CliRunner, Result

from farm.cli.main import app
from tests.driven_farm import DrivenFarm

GIT = ("--git", "https://example.org/hello.git")


class Typed:
    """Types commands at a farm."""

    def __init__(self, driven: DrivenFarm) -> None:
        self.driven = driven

    def __call__(self, *words: str, **env: str) -> Result:
        return CliRunner().invoke(app, list(words), env={**self.driven.env, **env}, prog_name="farm")

    def ok(self, *words: str) -> str:
        result = self(*words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def build(self, *words: str) -> int:
        """Asks for a build, and returns its number."""
        document = json.loads(self.ok("build", *GIT, "-t", "demo", "-a", "x86_64", "--json", *words))
        number: int = document["build"]["id"]
        return number

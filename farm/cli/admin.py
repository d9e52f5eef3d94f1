"""`farm up`, `farm targets`, `farm config`: run a farm, and show its targets and settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.options import JsonOption
from farm.cli.session import connected, console, emit, say
from farm.cli.text import clean
from farm.config import Settings, origins
from farm.errors import BadTarget
from farm.model.target import Target


def up(
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder of all the farm's files; FARM_DATA.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="The number of concurrent builds; one per processor by default.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a whole farm in the foreground.

    Starts broker, database, scheduler, workers and Flower in one process tree. Ctrl-C drains the farm: it finishes the
    running steps first.

    \b
    Example:
      farm up --data /srv/farm --workers 8
    """
    from farm.cli.up import up as run

    run(data, workers)


def targets(json: JsonOption = False) -> None:
    """List the targets.

    An invalid target file is listed with its first mistake; the other targets can still be used.

    \b
    Example:
      farm targets
    """
    from farm.service import documents
    from farm.targets.load import survey_targets

    settings = Settings.from_env()
    found: Mapping[str, Target | BadTarget] = survey_targets(settings) if not settings.url else _at_server()
    broken = [target for target in found.values() if isinstance(target, BadTarget)]
    if json:
        emit({"targets": [documents.target(name, target) for name, target in found.items()]})
    else:
        from farm.cli import tables

        console().print(tables.target_table(found, console().width))
    for error in broken:
        say(f"error: {clean(str(error))}")
    if broken:
        raise typer.Exit(BadTarget.exit_code)


def _at_server() -> Mapping[str, Target]:
    with connected() as farm:
        return farm.targets()


def config(json: JsonOption = False) -> None:
    """Show the settings in effect.

    Secrets are masked. Each setting is shown with its origin.

    \b
    Example:
      farm config
    """
    settings = Settings.from_env()
    shown, sources = settings.shown(), origins()
    if json:
        from farm.service import documents

        emit({"settings": documents.settings(shown, sources)})
        return
    from farm.cli.tables import plain

    rows = [(name, sources[name], clean(value)) for name, value in shown.items()]
    console().print(plain(("setting", "from", "value"), rows, console().width))

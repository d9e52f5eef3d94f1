"""`farm artifacts`: the files that builds made."""

from pathlib import Path
from typing import Annotated

import typer

from farm.cli.options import BuildArgument, JsonOption, parse_build
from farm.cli.session import connected, console, emit, say
from farm.cli.text import clean


def artifacts(
    build: BuildArgument,
    download: Annotated[
        Path | None,
        typer.Option("--download", "-d", metavar="DIR", help="Copy them into this folder.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    json: JsonOption = False,
) -> None:
    """List or download the files that a build stored.

    The files are those of the last attempt of each step. A downloaded file's sha256 is verified.

    \b
    Examples:
      farm artifacts 12
      farm artifacts 12 --download ./results
    """
    from farm.service import documents

    build_id = parse_build(build)
    with connected() as farm:
        files = farm.artifacts(build_id)
        paths = farm.download(build_id, download, overwrite=overwrite) if download else ()
    if json:
        document = {"build": build_id, "artifacts": [documents.file(file) for file in files]}
        emit(document | ({"downloaded": [str(path) for path in paths]} if download else {}))
    elif download:
        for path in paths:
            console().print(clean(str(path)), soft_wrap=True)
        say(f"{len(paths)} files, each with the expected sha256")
    elif files:
        from farm.cli import tables

        console().print(tables.file_table(files, console().width))
    else:
        console().print(f"build {build_id} has stored no files yet; `farm status {build_id}` shows where it is")

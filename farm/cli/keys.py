"""`farm keys`: the accounts of the broker."""

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.session import say
from farm.errors import BadRequest

keys = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_PASSWORD_BYTES = 24


@keys.callback()
def about() -> None:
    """Make the accounts of the farm's Redis.

    Without accounts, every process that reaches Redis can command the whole farm: every worker, every build. With
    accounts, a process can use only the keys of its role: a build worker its own queue and its own attempts.
    docs/operating.md says how to load them.

    \b
    Example:
      farm keys acl --passwords /etc/farm/passwords > /etc/redis/farm.acl
    """


@keys.command()
def acl(
    passwords: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="One `account password` per line. An account that is not there gets a new password, which is added;"
            " the file is made with mode 0600.",
        ),
    ],
    admin: Annotated[
        str, typer.Option(metavar="NAME", help="Add an account that may do everything, to administer Redis with.")
    ] = "",
) -> None:
    """Print an ACL file for Redis 7 or newer: one account for each role.

    The accounts are scheduler, client, flower, source, publish, and build.ARCH for each architecture. The printed file
    has hashes of the passwords; the passwords themselves are in FILE alone. Run it again with the same FILE after an
    update of the farm: roles may need other rights, and the passwords stay.

    \b
    Examples:
      farm keys acl --passwords /etc/farm/passwords > /etc/redis/farm.acl
      redis-server --aclfile /etc/redis/farm.acl …
      FARM_BROKER_URL=redis://build.x86_64:PASSWORD@broker:6379/0 celery -A workers.tasks worker -n build@%h …
    """
    from farm.broker import roles

    accounts = (*roles.ACCOUNTS, *((admin,) if admin else ()))
    if admin in (*roles.ACCOUNTS, "default"):
        raise BadRequest(f"--admin {admin!r} is a role's account; choose another name")
    known = _read(passwords)
    new = {name: secrets.token_urlsafe(_PASSWORD_BYTES) for name in accounts if name not in known}
    if new:
        _write(passwords, known | new)
        say(f"new passwords for {', '.join(new)} are in {passwords}")
    lines = [*roles.acl(known | new)]
    if admin:
        lines.append(roles.admin(admin, (known | new)[admin]))
    typer.echo("\n".join(lines))


def _read(path: Path) -> dict[str, str]:
    """Raises BadRequest for a line that is not an account and its password."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"--passwords {str(path)!r} cannot be read: {error}") from error
    found = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if len(words) != 2:
            raise BadRequest(f"{path}, line {number} is not `account password`; correct it or remove the line")
        found[words[0]] = words[1]
    return found


def _write(path: Path, passwords: dict[str, str]) -> None:
    """Write the file in one step, readable by its owner alone from the first byte on."""
    text = "".join(f"{account} {password}\n" for account, password in passwords.items())
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        new.replace(path)
    except OSError as error:
        raise BadRequest(f"--passwords {str(path)!r} cannot be written: {error.strerror}") from error

"""The command `farm`: its commands, and how errors become one line and an exit code.

Each command imports heavy modules by itself, so that `farm --help` and completion stay quick.
"""

import atexit
import errno
import gc
import re
import sys
import traceback
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, TextIO

import typer
import typer.main
from typer.core import TyperGroup

from farm.cli import (
    admin,
    audit,
    hosts,
    keys,
    local,
    login,
    packages,
    projects,
    repos,
    results,
    server,
    show,
    submit,
    tokens,
)
from farm.cli import gc as gc_command
from farm.cli.session import emit, say, session
from farm.cli.streams import discard, open_closed
from farm.cli.text import clean
from farm.config import Settings
from farm.errors import BadRequest, BadSettings, FarmError
from farm.model.version import VERSION

_UNEXPECTED = 1
_INTERRUPTED = 130
_COLLECT_EVERY = 50_000  # objects
_NAME_CHARS = 300
_SURROGATE = re.compile("[\ud800-\udfff]")  # Python's stand-in for a byte of a name that is not UTF-8
_BROKEN_PIPE = 141  # the code that a shell shows for a program ended by SIGPIPE, such as cat


class FarmGroup(TyperGroup):
    """Turns all exceptions of commands into messages and exit codes, in one place."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of COMMANDS; Typer would put groups first."""
        return sorted(super().list_commands(ctx), key=list(COMMANDS).index)

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            discard(sys.stdout)
            raise typer.Exit(_BROKEN_PIPE) from None
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None
        except FarmError as error:
            _report(ctx, error.code, str(error))
            raise typer.Exit(error.exit_code) from error
        except UnicodeEncodeError as error:
            if not _SURROGATE.search(error.object):
                raise
            _report(
                ctx, BadRequest.code, f"{error.object[:_NAME_CHARS]!a} is not UTF-8; rename it, or give another name"
            )
            raise typer.Exit(BadRequest.exit_code) from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC and _is_full(sys.stdout):
                discard(sys.stdout)
                say(f"error: standard output cannot be written: {error.strerror}; the command itself was carried out")
                raise typer.Exit(_UNEXPECTED) from None
            if not _is_ours(error):
                raise
            hint = "FARM_LOG_LEVEL=DEBUG shows the traceback; please report it"
            _report(ctx, "unexpected", f"unexpected {type(error).__name__}: {error}; {hint}")
            raise typer.Exit(_UNEXPECTED) from error


def _is_full(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError as error:
        return error.errno == errno.ENOSPC
    return False


def _is_ours(error: Exception) -> bool:
    """False for Typer's own exceptions, usage errors and exits, which it shows itself."""
    return not type(error).__module__.startswith(("typer", "click"))


def _report(ctx: typer.Context, code: str, message: str) -> None:
    if session(ctx).is_json:
        emit({"error": {"code": code, "message": message}})
    if _is_debugging():
        traceback.print_exc()
    say(f"error: {clean(message)}")


def _is_debugging() -> bool:
    try:
        return Settings.from_env().log_level.upper() == "DEBUG"
    except BadSettings:
        return False


app = typer.Typer(
    cls=FarmGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: Rich's takes 0.25 s longer, and pipes badly
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"farm {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Build packages for a distribution, from git or a src.rpm, into repositories that dnf installs from.

    \b
    Start here:
      farm up                                           in a terminal of its own
      farm try -t demo                                  build the folder you are in, without a farm
      farm build --git URL -t demo -a x86_64 --wait     a build, step by step
      farm status                                       running builds, and why steps wait
    """


COMMANDS: dict[str, Callable[..., None] | typer.Typer] = {
    "up": admin.up,
    "build": submit.build,
    "try": local.try_,
    "status": show.status,
    "list": show.list_,
    "log": show.log,
    "shell": local.shell,
    "retry": submit.retry,
    "cancel": submit.cancel,
    "artifacts": results.artifacts,
    "repo": repos.repo,
    "targets": admin.targets,
    "project": projects.project,
    "package": packages.package,
    "workers": hosts.workers,
    "keys": keys.keys,
    "server": server.server,
    "token": tokens.token,
    "login": login.login,
    "logout": login.logout,
    "whoami": login.whoami,
    "audit": audit.audit,
    "gc": gc_command.gc,
    "config": admin.config,
}
for _name, _command in COMMANDS.items():
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name)
    else:
        app.command(_name)(_command)


@cache
def command() -> Callable[..., Any]:
    """`app` with the parameters of all its commands read: a quarter of what a fork of the fork server would do."""
    return typer.main.get_command(app)


def main() -> None:
    """Run a command in this process. start.py is the console script."""
    open_closed()
    _collect_rarely()
    command()(prog_name="farm")


def _collect_rarely() -> None:
    """Spare a command a third of its time: the objects that imports make live until its end, and by default Python's
    collector looks at them again for every 700 new ones, and once more before the process ends.
    """
    gc.set_threshold(_COLLECT_EVERY)
    atexit.register(gc.freeze)


if __name__ == "__main__":
    main()

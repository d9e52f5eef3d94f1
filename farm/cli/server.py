"""`farm server`: the HTTP server in the foreground."""

import ipaddress
import re
from typing import Annotated

import typer

from farm.cli.session import say
from farm.config import Settings
from farm.errors import BadRequest

_ADDRESS = re.compile(r"(?:\[(?P<ip6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]]+)):(?P<port>[0-9]{1,5})")
_PORT_MAX = 65535


def server(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The address to listen on; port 0 is any free one.")
    ] = "127.0.0.1:8780",
) -> None:
    """Serve the farm over HTTP, in the foreground.

    People and programs use it with tokens (`farm token new`). `farm up` runs one on this machine by itself. The server
    has no TLS of its own: a proxy such as nginx brings it (docs/server.md). Ctrl-C ends it.

    \b
    Example:
      farm server --listen 127.0.0.1:8780
    """
    host, port = _parse(listen)
    from farm import process_log
    from farm.extensions import load_extensions
    from farm.server.run import listen as open_socket
    from farm.server.run import serve

    settings = Settings.from_env()
    load_extensions()
    process_log.set_up(settings.log_level)
    if not _is_loopback(host):
        say(f"warning: tokens cross the network of {host} in clear text; put a proxy with TLS in front")
    serve(settings, open_socket(host, port), say=lambda address: say(f"serving on {address}; Ctrl-C ends it"))


def _parse(text: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(text.strip())
    if not found or int(found["port"]) > _PORT_MAX:
        raise BadRequest(f"--listen {text[:80]!r} is no address; use 127.0.0.1:8780 or [::1]:8780")
    return found["ip6"] or found["host"], int(found["port"])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

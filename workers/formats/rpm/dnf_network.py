"""The network of dnf while it downloads: a gateway to public addresses, and to the hosts that the target names.

An administrator names the repositories, but not the mirrors behind a metalink, nor what a mirror redirects to: without
the gateway, each of them could send requests of the build host to addresses behind the farm's firewall.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from farm.model.target import Target
from workers.core.context import StepContext
from workers.formats.rpm.dnf import DnfRepository
from workers.sources.egress import EgressPolicy
from workers.sources.gateway import Gateway

_SCHEMES = ("http", "https", "ftp")
#: libcurl: `Curl error (97): … for URL [cannot complete SOCKS5 connection to HOST …]`, from a gateway that refused.
_NOT_CONNECTED = re.compile(
    rb"Curl error \(\d+\): [^\n]{0,200}? for (?P<url>[^ \n]{1,2000}) \[[^\n\]]{0,200}SOCKS5?[^\n\]]{0,300}\]?"
)
_SAID_MAX = 50  # sentences; dnf tries a handful of mirrors


class DnfNetwork:
    """The gateway of one installation, in dnf's terms."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @property
    def prefix(self) -> Sequence[str]:
        """The beginning of a command line whose command has only this network."""
        return self._gateway.prefix

    @property
    def options(self) -> Mapping[str, str]:
        """The lines of dnf's configuration. They have the gateway's credential, which is worth nothing later."""
        parts = urlsplit(self._gateway.settings["http.proxy"])
        return {
            "proxy": f"{parts.scheme}://{parts.hostname}:{parts.port}",
            "proxy_username": parts.username or "",
            "proxy_password": parts.password or "",
        }

    def told(self, said: bytes) -> bytes:
        """dnf's output, with the gateway's reasons in place of libcurl's words about the gateway."""
        reasons = [*self._gateway.refused[-_SAID_MAX:], *(text for _, text in self._gateway.failed[-_SAID_MAX:])]

        def told(found: re.Match[bytes]) -> bytes:
            words = found[0].decode(errors="replace")
            reason = next((one for one in reversed(reasons) if _host_of(one) in words), None)
            return found[0] if reason is None else b"Curl error (7): " + reason.encode() + b" for " + found["url"]

        return _NOT_CONNECTED.sub(told, said)


@contextmanager
def dnf_network(
    target: Target, repositories: Sequence[DnfRepository], context: StepContext, folder: Path
) -> Iterator[DnfNetwork]:
    """`folder` is the installation's own."""
    egress = EgressPolicy.of((*context.settings.networks, *target.allow_networks))
    with Gateway(replace(egress, named=frozenset(_hosts(repositories))), folder) as gateway:
        yield DnfNetwork(gateway)


def _hosts(repositories: Iterable[DnfRepository]) -> Iterator[str]:
    for repository in repositories:
        for _, value in repository.options:
            parts = urlsplit(value)
            if parts.scheme in _SCHEMES and parts.hostname:
                yield parts.hostname


def _host_of(reason: str) -> str:
    """The host in a sentence of the gateway: its first word with a dot, or its first word."""
    words = reason.replace(",", " ").split()
    return next((word for word in words if "." in word), words[0])

"""The siege's networks: a core with a bridge, in which the broker listens, and one namespace a host, cabled to it.

Nothing outside can reach them, and they reach nothing outside.
"""

from contextlib import suppress
from pathlib import Path

from tests.siege.commands import CommandFailed, run

CORE_ADDRESS = "10.213.0.1"
_BRIDGE = "bridge"


def remove_left(tag: str) -> None:
    """Remove the namespaces of a siege that did not close its network."""
    for namespace in Path("/run/netns").glob(f"{tag}-*"):
        with suppress(CommandFailed):
            run("ip", "netns", "delete", namespace.name)


class Network:
    """Use `close` in the end, whatever happened."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._hosts: list[str] = []
        self._made: list[str] = []
        self.core = self._make("core")
        run("ip", "-n", self.core, "link", "add", _BRIDGE, "type", "bridge")
        run("ip", "-n", self.core, "address", "add", f"{CORE_ADDRESS}/24", "dev", _BRIDGE)
        run("ip", "-n", self.core, "link", "set", _BRIDGE, "up")

    def add_host(self, name: str) -> str:
        """A namespace with a cable to the bridge; returns the namespace's name."""
        namespace = self._make(name)
        number = len(self._hosts) + 2
        self._hosts.append(name)
        run("ip", "-n", self.core, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        run("ip", "-n", self.core, "link", "set", name, "master", _BRIDGE)
        run("ip", "-n", namespace, "address", "add", f"10.213.0.{number}/24", "dev", "eth0")
        run("ip", "-n", namespace, "link", "set", "eth0", "up")
        self.mend(name)
        return namespace

    def cut(self, name: str) -> None:
        """Pull the host's cable: packets vanish, connections stay half open."""
        run("ip", "-n", self.core, "link", "set", name, "down")

    def mend(self, name: str) -> None:
        run("ip", "-n", self.core, "link", "set", name, "up")

    def close(self) -> None:
        for namespace in reversed(self._made):
            with suppress(CommandFailed):
                run("ip", "netns", "delete", namespace)
        self._made.clear()

    def _make(self, name: str) -> str:
        namespace = f"{self._tag}-{name}"
        run("ip", "netns", "add", namespace)
        self._made.append(namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace


def path_of(namespace: str) -> Path:
    return Path("/run/netns") / namespace

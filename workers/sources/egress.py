"""Decides the addresses to which a fetch may connect, and makes all connections of a fetch.

A name is resolved here, each address is checked, and the connection is made to the checked address itself, so it does
not matter if the name resolves to another address a moment later. Owns the policy and the connections; gateway.py sends
git's connections here, download.py those of httpx.
"""

import base64
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from farm.errors import FarmError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], list[str]]

CONNECT_S = 20.0
_ANSWER_MAX_BYTES = 16 * 1024
_HOST_MAX_CHARS = 255
_NO_SUCH_HOST = (socket.EAI_NONAME, socket.EAI_NODATA)
_STATUS_OK = re.compile(rb"HTTP/1\.[01] 2\d\d\b")


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, texts))


#: The metadata services from which a cloud's machines get their secrets: link-local addresses (Amazon, Google and
#: others), Amazon's and Google's over IPv6, Alibaba's. No setting opens them.
_METADATA = _networks(
    "169.254.169.254/32",
    "169.254.169.253/32",
    "169.254.170.0/24",
    "fd00:ec2::/32",
    "fd20:ce::254/128",
    "100.100.100.200/32",
    "168.63.129.16/32",
)
#: IANA's registry of special-purpose IPv4 addresses, multicast and the reserved ranges.
_CLOSED_V4 = _networks(
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
)
#: In IPv6 only global unicast is open, without the ranges of protocols (such as Teredo) and of documentation.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_CLOSED_V6 = _networks("2001::/23", "2001:db8::/32", "3fff::/20")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")


_METADATA_SERVICE = "it is a cloud's metadata service"
_REMEDY = "allow_networks of the target or FARM_ALLOW_NETWORKS can allow a network"


class Closed(FarmError):
    """A fetch may not connect to the address. The argument is the whole sentence."""

    code = "closed-address"
    exit_code = 55


def is_servers_fault(error: BaseException | None) -> bool:
    """Whether the cause of an error is that the host does not exist, refuses the connection, or is not to be trusted.

    A resolver that does not answer is this host's, and so is a proxy of this host.
    """
    while error is not None:
        if isinstance(error, socket.gaierror):
            return error.errno in _NO_SUCH_HOST
        if isinstance(error, ConnectionRefusedError | ssl.SSLError):
            return True
        if type(error) is OSError:
            return False
        error = error.__cause__ or error.__context__
    return False


def resolve(host: str, port: int) -> list[str]:
    """Resolve with the system's resolver, which also reads old spellings of IPv4 addresses: octal, hexadecimal, one
    number."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def plain(text: str) -> Address:
    """The address without its zone. An IPv4-mapped IPv6 address becomes the IPv4 address."""
    found = ipaddress.ip_address(text.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def embedded(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses into which a gateway on the way may translate an IPv6 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address in _NAT64 or address.packed[8:12] in _ISATAP:
        yield ipaddress.IPv4Address(address.packed[-4:])
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo


def _is_closed(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return any(address in network for network in _CLOSED_V4)
    if address in _NAT64:  # `embedded` gives the address in it, which is checked
        return False
    return address not in _GLOBAL_V6 or any(address in network for network in _CLOSED_V6)


def _is_this_host(address: Address) -> bool:
    """Whether the address is this host's. Nothing is sent: to connect a datagram socket only looks up the route."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return plain(probe.getsockname()[0]) == address
    except OSError:
        return False


@dataclass(frozen=True, kw_only=True)
class EgressPolicy:
    """`allowed` are networks of a target or the farm that are open although they are not public, and `named` are hosts
    that an administrator named, which are open wherever they are. `proxies` are the host's own, by scheme; a connection
    through a proxy is made by name, and the proxy's rules apply in addition."""

    allowed: tuple[Network, ...] = ()
    named: frozenset[str] = frozenset()
    resolver: Resolver = resolve
    proxies: dict[str, str] = field(default_factory=getproxies_environment)

    @classmethod
    def of(cls, networks: Iterable[str]) -> "EgressPolicy":
        """The policy for networks as texts, which are already checked."""
        return cls(allowed=tuple(ipaddress.ip_network(text) for text in networks))

    def refuses(self, text: str) -> str | None:
        """The reason why an address is closed; None if it is open."""
        address = plain(text)
        every = (address, *embedded(address))
        if any(one in network for one in every for network in _METADATA):
            return _METADATA_SERVICE
        if all(self._allows(one) for one in every):
            return None
        if any(_is_closed(one) and not self._allows(one) for one in every):
            return "it is not public"
        return "it is this host's own" if _is_this_host(address) else None

    def _allows(self, address: Address) -> bool:
        return any(address in network for network in self.allowed)

    def addresses(self, host: str, port: int) -> list[str]:
        """The open addresses of a name. Raises Closed if all its addresses are closed, OSError if it has none."""
        if not host or len(host) > _HOST_MAX_CHARS or not host.isprintable():
            raise Closed(f"{host!r:.100} is not the name of a host")
        try:
            found = self.resolver(host, port)
        except (UnicodeError, ValueError) as error:
            raise Closed(f"{host!r:.100} is not the name of a host") from error
        refused = {text: why for text in found if (why := self.refuses(text))}
        if host in self.named:
            refused = {text: why for text, why in refused.items() if why == _METADATA_SERVICE}
        is_open = [text for text in found if text not in refused]
        if refused and not is_open:
            text, why = next(iter(refused.items()))
            where = f"its address is {text}" if host == text else f"the address of {host} is {text}"
            remedy = "no setting opens it" if why == _METADATA_SERVICE else _REMEDY
            raise Closed(f"{where}, to which the farm does not connect: {why}; {remedy}")
        return is_open

    def connect(self, host: str, port: int, *, timeout_s: float = CONNECT_S, scheme: str = "https") -> socket.socket:
        """A connection to an open address. Raises Closed, and OSError for an error of the network."""
        host = host.strip("[]")
        proxy = self.proxies.get(scheme) or self.proxies.get("all")
        if proxy and not proxy_bypass(host):
            return self._through(proxy, host, port, timeout_s)
        failed: OSError = OSError(f"{host} has no address")
        until = time.monotonic() + timeout_s
        for address in self.addresses(host, port):
            try:
                return socket.create_connection((address, port), timeout=max(0.1, until - time.monotonic()))
            except OSError as error:
                failed = error
        raise failed

    def _through(self, proxy: str, host: str, port: int, timeout_s: float) -> socket.socket:
        """A connection through the host's own proxy, which also resolves a name that this host cannot resolve."""
        with suppress(OSError):
            self.addresses(host, port)
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme != "http" or not parts.hostname:
            raise OSError(f"the host's proxy {parts.scheme}://{parts.hostname} is not an http:// proxy; set one")
        try:
            connection = socket.create_connection((parts.hostname, parts.port or 3128), timeout=timeout_s)
        except OSError as error:
            raise OSError(f"the host's proxy {parts.hostname} does not answer: {error}") from error
        try:
            connection.sendall(_request(parts, host, port))
            head = _head(connection)
        except BaseException:
            connection.close()
            raise
        if not _STATUS_OK.match(head):
            connection.close()
            said = head.partition(b"\r\n")[0].decode("ascii", "backslashreplace")[:100]
            raise OSError(f"the host's proxy does not connect to {host} port {port}: {said}")
        return connection


def _request(proxy: SplitResult, host: str, port: int) -> bytes:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if proxy.username is not None:
        pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        lines.append("Proxy-Authorization: Basic " + base64.b64encode(pair.encode()).decode())
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _head(connection: socket.socket) -> bytes:
    """Read the head byte by byte, since the bytes after it belong to the caller."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece or len(head) > _ANSWER_MAX_BYTES:
            raise OSError("the host's proxy broke off")
        head += piece
    return head

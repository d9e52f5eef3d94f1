"""The addresses to which a fetch may connect, in all their spellings."""

import pytest

from workers.sources.egress import Closed, EgressPolicy

CLOSED = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.1.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a00:1::",
    "2600::5efe:10.0.0.1",
    "2600::200:5efe:127.0.0.1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "5f00::1",
]
METADATA = [
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "::ffff:169.254.169.254%eth0",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::6464:64c8",
    "2002:a9fe:a9fe::",
    "fd00:ec2::254",
    "fd00:ec2::254%eth0",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
]


@pytest.mark.parametrize("address", CLOSED)
def test_an_address_that_is_not_public_is_closed(address: str) -> None:
    assert EgressPolicy().refuses(address) == "it is not public"


@pytest.mark.parametrize("address", METADATA)
def test_a_clouds_metadata_service_is_closed_whatever_is_allowed(address: str) -> None:
    assert EgressPolicy.of(("0.0.0.0/0", "::/0")).refuses(address) == "it is a cloud's metadata service"


@pytest.mark.parametrize("address", ["1.1.1.1", "9.9.9.9", "2606:4700::1111", "64:ff9b::101:101", "2002:101:101::1"])
def test_a_public_address_is_open(address: str) -> None:
    assert EgressPolicy().refuses(address) is None


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.0.0.0/8", "::ffff:10.1.2.3"),
        ("10.0.0.0/8", "64:ff9b::a01:203"),
        ("127.0.0.0/8", "127.0.0.1"),
        ("::1/128", "::1"),
        ("fd00::/8", "fd00::1"),
    ],
)
def test_a_network_that_is_allowed_is_open_and_no_other(network: str, address: str) -> None:
    egress = EgressPolicy.of((network,))
    assert egress.refuses(address) is None
    assert egress.refuses("192.168.0.1") is not None


@pytest.mark.parametrize("name", ["localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "[::1]"])
def test_every_spelling_of_this_host_is_closed_when_it_is_resolved(name: str) -> None:
    with pytest.raises(Closed, match="to which the farm does not connect: it is not public"):
        EgressPolicy(proxies={}).connect(name, 80)


def test_an_address_is_named_once_and_no_setting_is_offered_that_does_not_help() -> None:
    egress = EgressPolicy(resolver=lambda host, _: [host], proxies={})
    with pytest.raises(Closed, match=r"^its address is 10\.0\.0\.1, to which .* not public; allow_networks"):
        egress.addresses("10.0.0.1", 80)
    with pytest.raises(Closed) as metadata:
        egress.addresses("169.254.169.254", 80)
    assert "allow_networks" not in str(metadata.value)


def test_a_named_host_is_open_wherever_it_is_but_for_a_metadata_service() -> None:
    where = {"mirror.internal": ["10.0.0.1"], "evil.internal": ["169.254.169.254"], "other.internal": ["10.0.0.1"]}
    named = frozenset({"mirror.internal", "evil.internal"})
    egress = EgressPolicy(named=named, resolver=lambda host, _: where[host], proxies={})
    assert egress.addresses("mirror.internal", 80) == ["10.0.0.1"]
    for host in ("evil.internal", "other.internal"):
        with pytest.raises(Closed, match=host):
            egress.addresses(host, 80)


def test_a_name_is_resolved_once_and_the_checked_address_is_connected_to() -> None:
    asked: list[str] = []

    def rebinding(host: str, _: int) -> list[str]:
        asked.append(host)
        return ["192.0.2.1"] if len(asked) > 1 else ["127.0.0.1"]

    with pytest.raises(Closed, match=r"evil\.example is 127\.0\.0\.1"):
        EgressPolicy(resolver=rebinding, proxies={}).connect("evil.example", 80)
    assert asked == ["evil.example"]


def test_only_the_open_ones_of_several_addresses_are_used() -> None:
    egress = EgressPolicy(resolver=lambda *_: ["127.0.0.1", "1.1.1.1"], proxies={})
    assert egress.addresses("both.example", 80) == ["1.1.1.1"]


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "x" * 300, "a" * 64 + ".example"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(Closed, match="is not the name of a host"):
        EgressPolicy(proxies={}).connect(name, 80)

"""What is not read of an answer, and what is not shown of a URL."""

import httpx
import pytest

from farm.errors import NetworkTrouble
from workers.fetching import download

_URL = "https://h.example/x.tar"


def _answer(*urls: str, status: int = 200, address: str = "192.0.2.1") -> httpx.Response:
    class Stream:
        def get_extra_info(self, _: str) -> tuple[str, int]:
            return address, 443

    history = [httpx.Response(302, request=httpx.Request("GET", url)) for url in urls[:-1]]
    request = httpx.Request("GET", urls[-1])
    return httpx.Response(status, request=request, history=history, extensions={"network_stream": Stream()})


def test_a_plain_answer_is_read() -> None:
    assert download.refusal(_answer(_URL), _URL, is_checked=False) is None
    assert download.refusal(_answer("http://h.example/x", _URL), _URL, is_checked=False) is None


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "::ffff:169.254.169.254%eth0",
        "fd00:ec2::254",
        "fd00:ec2::254%eth0",
        "fd20:ce::254",
        "100.100.100.200",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::6464:64c8",
    ],
)
def test_link_local_addresses_and_a_clouds_own_are_not_read_from(address: str) -> None:
    refused = download.refusal(_answer(_URL, address=address), _URL, is_checked=True)
    assert refused is not None
    assert "link-local" in refused.reason


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "::ffff:192.0.2.1", "fd00::1", "2001:db8::1", "64:ff9b::1.2.3.4"]
)
def test_every_other_address_is_read_from(address: str) -> None:
    assert download.refusal(_answer(_URL, address=address), _URL, is_checked=True) is None


def test_a_fall_from_https_to_http_needs_a_checksum() -> None:
    answer = _answer(_URL, "http://h.example/x")
    assert download.refusal(answer, _URL, is_checked=True) is None
    refused = download.refusal(answer, _URL, is_checked=False)
    assert refused is not None
    assert "from https to http" in refused.reason


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_the_networks_fault(status: int) -> None:
    with pytest.raises(NetworkTrouble, match=f"answered {status}"):
        download.refusal(_answer(_URL, status=status), _URL, is_checked=True)


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 410])
def test_every_other_answer_is_the_askers(status: int) -> None:
    refused = download.refusal(_answer(_URL, status=status), _URL, is_checked=True)
    assert refused is not None
    assert f"answered {status}" in refused.reason


def test_a_shown_url_has_no_secrets_and_nothing_that_a_terminal_acts_on() -> None:
    shown = download.hide("https://user:s3cret@h.example/a\x1b[2J/x.tar?token=s3cret#s3cret")
    assert shown == "https://***@h.example/a\\x1b[2J/x.tar?…"
    assert "s3cret" not in download.hide("https://user:s3cret@[bad/x")

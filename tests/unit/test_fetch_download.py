"""Answers that are not read, and parts of a URL that are not shown."""

import httpx
import pytest

from farm.errors import NetworkTrouble
from workers.sources import download
from workers.sources.wanted import hide

_URL = "https://h.example/x.tar"


def _answer(*urls: str, status: int = 200) -> httpx.Response:
    history = [httpx.Response(302, request=httpx.Request("GET", url)) for url in urls[:-1]]
    request = httpx.Request("GET", urls[-1])
    return httpx.Response(status, request=request, history=history)


def test_a_plain_answer_is_read() -> None:
    assert download.refusal(_answer(_URL), _URL, is_checked=False) is None
    assert download.refusal(_answer("http://h.example/x", _URL), _URL, is_checked=False) is None


def test_a_fall_from_https_to_http_needs_a_checksum() -> None:
    answer = _answer(_URL, "http://h.example/x")
    assert download.refusal(answer, _URL, is_checked=True) is None
    refused = download.refusal(answer, _URL, is_checked=False)
    assert refused is not None
    assert "from https to http" in refused.reason


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_error_that_may_pass_is_the_networks_fault(status: int) -> None:
    with pytest.raises(NetworkTrouble, match=f"answered {status}"):
        download.refusal(_answer(_URL, status=status), _URL, is_checked=True)


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 410])
def test_every_other_answer_is_the_askers(status: int) -> None:
    refused = download.refusal(_answer(_URL, status=status), _URL, is_checked=True)
    assert refused is not None
    assert f"answered {status}" in refused.reason


def test_a_shown_url_has_no_secrets_and_nothing_that_a_terminal_acts_on() -> None:
    shown = hide("https://user:s3cret@h.example/a\x1b[2J/x.tar?token=s3cret#s3cret")
    assert shown == "https://***@h.example/a\\x1b[2J/x.tar?…"
    assert "s3cret" not in hide("https://user:s3cret@[bad/x")

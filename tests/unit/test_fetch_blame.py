"""Git's messages are told apart: the asker's fault ends the build, the network's is tried again."""

import signal
from pathlib import Path

import pytest

from farm.errors import DiskFull, HostUnfit, NetworkTrouble
from farm.model.outcome import Outcome
from workers.core.context import Ended
from workers.core.run import CommandFailed, Completed
from workers.sources import git_blame

_URL = "https://***@h.example/x"


def _judged(said: str, *, number: int | None = None) -> Exception:
    done = Completed(code=None if number else 128, signal=number, seconds=0.1)
    error = CommandFailed("git exited with code 128", done, said.encode())
    return git_blame.judge(error, shown=_URL, root=Path("/cache"), limit_bytes=1000)


@pytest.mark.parametrize(
    "said",
    [
        "fatal: unable to access 'https://h.example/x/': Could not resolve host: h.example",
        "fatal: unable to access 'https://h.example/x/': Failed to connect to h.example port 443: Connection refused",
        "fatal: unable to access 'https://h.example/x/': The requested URL returned error: 503",
        "fatal: unable to access 'https://h.example/x/': The requested URL returned error: 429",
        "fatal: unable to connect to h.example:\nh.example[0: 192.0.2.1]: errno=Connection timed out",
        "ssh: connect to host h.example port 22: No route to host\nfatal: Could not read from remote repository.",
        "error: RPC failed; curl 92 HTTP/2 stream 0 was not closed cleanly\nfatal: early EOF",
        "fatal: the remote end hung up unexpectedly",
        "",
    ],
)
def test_a_network_that_fails_is_trouble(said: str) -> None:
    assert isinstance(_judged(said), NetworkTrouble)


@pytest.mark.parametrize(
    "said",
    [
        "fatal: '/srv/x' does not appear to be a git repository\nfatal: Could not read from remote repository.",
        "remote: Repository not found.\nfatal: repository 'https://h.example/x/' not found",
        "fatal: https://h.example/x/info/refs not valid: is this a git repository?",
        "ERROR: Repository not found.\nfatal: Could not read from remote repository.",
        "fatal: remote error: access denied or repository not exported: /x",
    ],
)
def test_a_repository_that_is_not_there_is_the_askers_fault(said: str) -> None:
    judged = _judged(said)
    assert isinstance(judged, Ended)
    assert judged.outcome is Outcome.FAILED
    assert judged.reason.startswith(f"{_URL} does not exist, or is no git repository: ")
    assert "Could not read from remote" not in judged.reason, "the cause comes first, not what followed from it"


@pytest.mark.parametrize(
    "said",
    [
        "fatal: could not read Username for 'https://h.example': terminal prompts disabled",
        "remote: HTTP Basic: Access denied\nfatal: Authentication failed for 'https://h.example/x/'",
        "fatal: unable to access 'https://h.example/x/': The requested URL returned error: 403",
        "git@h.example: Permission denied (publickey).\nfatal: Could not read from remote repository.",
    ],
)
def test_missing_credentials_are_the_askers_fault(said: str) -> None:
    judged = _judged(said)
    assert isinstance(judged, Ended)
    assert "needs credentials, or those given are refused" in judged.reason


def test_a_tool_that_this_host_lacks_is_its_own_trouble() -> None:
    assert isinstance(_judged("Host key verification failed.\nfatal: Could not read from remote"), HostUnfit)
    assert isinstance(_judged("fatal: write error: No space left on device"), DiskFull)


@pytest.mark.parametrize(("said", "number"), [("fatal: index-pack died of signal 25", None), ("", signal.SIGXFSZ)])
def test_more_than_the_limit_is_over_it(said: str, number: int | None) -> None:
    judged = _judged(said, number=number)
    assert isinstance(judged, Ended)
    assert judged.outcome is Outcome.OVER_LIMIT
    assert "larger than the step's disk limit of 1000 bytes; --limit disk=" in judged.reason


def test_a_transport_that_is_not_allowed_is_the_askers_fault() -> None:
    assert isinstance(_judged("fatal: transport 'ext' not allowed"), Ended)


def test_a_silent_git_is_named_and_not_the_program_that_started_it() -> None:
    error = CommandFailed("setpriv exited", Completed(code=1, signal=None, seconds=0.1), b"x\nssh: gone\n")
    judged = git_blame.judge(error, shown=_URL, root=Path("/cache"), limit_bytes=1000)
    assert str(judged) == f"git could not read {_URL}: git exited with code 1 after 0.10 s: ssh: gone"


def test_a_servers_message_is_shown_on_one_printable_line() -> None:
    judged = _judged("fatal: remote error: \x1b[2J not found\r\u202e")
    assert str(judged).isprintable()


def test_the_farms_own_proxy_is_not_in_the_reason() -> None:
    """curl calls a server that the gateway cannot reach a proxy that does not connect."""
    judged = _judged(
        "fatal: unable to access 'https://h.example/x/': Can't complete SOCKS5 connection to h.example. (4)"
    )
    assert isinstance(judged, NetworkTrouble)
    assert str(judged).endswith("unable to access 'https://h.example/x/': cannot connect")

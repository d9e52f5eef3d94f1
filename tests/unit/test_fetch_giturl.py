"""Git URLs: accepted and refused ones, and the way of the credentials."""

from dataclasses import replace

import pytest

from workers.core.context import Ended
from workers.sources import giturl


@pytest.mark.parametrize(
    "url",
    [
        "https://h.example/x.git",
        "http://h.example:8080/x",
        "ssh://git@h.example/x",
        "git://h.example/x",
        "file:///srv/x.git",
        "/srv/x.git",
        "git@h.example:group/x.git",
        "h.example:x",
        "git@[::1]:x",
    ],
)
def test_urls_of_git_are_accepted_unchanged(url: str) -> None:
    found = giturl.parse(url)
    assert found.plain == url
    assert found.config == {}
    assert found.is_local == (url.startswith(("/", "file:")))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-oProxyCommand=id",
        "--upload-pack=id",
        "ext::sh -c id",
        "fd::17",
        "ftp://h.example/x",
        "https:///x",
        "https://-h.example/x",
        "ssh://-oProxyCommand=id/x",
        "ssh://-l@h.example/x",
        "ssh://h.example/-x",
        "ssh://a`id`b/x",
        "ssh://a$(id)/x",
        "ssh://u@a;id/x",
        "git://a|id/x",
        "-h:x",
        "u@-oProxyCommand=id:x",
        "h:-x",
        "h::x",
        "relative/path",
        "./x",
        "file://h.example/x",
        "file://x",
        "https://h.example/a\nb",
        "https://h.example:port/x",
        "https://[::1/x",
        "transport::https://h.example/x",
        "javascript://h.example/x",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises(Ended, match="is not a git URL"):
        giturl.parse(url)


@pytest.mark.parametrize(
    ("login", "header"), [("u:p%40ss", "Basic dTpwQHNz"), ("token", "Basic dG9rZW46"), (":p", "Basic OnA=")]
)
def test_credentials_go_into_the_environment_and_nowhere_else(login: str, header: str) -> None:
    found = giturl.parse(f"https://{login}@h.example/x.git")
    assert found.plain == "https://h.example/x.git"
    assert found.shown == "https://***@h.example/x.git"
    assert found.config == {"http.https://h.example/.extraHeader": f"Authorization: {header}"}


def test_a_password_for_ssh_is_dropped() -> None:
    found = giturl.parse("ssh://git:secret@h.example/x")
    assert found.plain == "ssh://git@h.example/x"
    assert "secret" not in found.shown


def test_refusals_show_no_credentials() -> None:
    with pytest.raises(Ended) as refused:
        giturl.parse("ftp://user:secret@h.example/x")
    assert "secret" not in refused.value.reason


def test_all_credentials_share_a_mirror_and_are_told_apart_as_its_readers() -> None:
    urls = [giturl.parse(f"https://{login}h.example/x") for login in ("", "a:b@", "a:c@")]
    assert len({url.key for url in urls}) == 1
    assert len({url.access for url in urls}) == 3


def test_a_submodule_without_the_ssh_key_is_another_reader_than_one_with_it() -> None:
    url = giturl.parse("ssh://git@h.example/x")
    assert replace(url, may_use_key=False).access != url.access


@pytest.mark.parametrize(
    ("parent", "url", "full"),
    [
        ("https://u:p@h.example/g/x.git", "../y.git", "https://u:p@h.example/g/y.git"),
        ("https://h.example/g/x", "./y", "https://h.example/g/x/y"),
        ("git@h.example:g/x.git", "../y.git", "git@h.example:g/y.git"),
        ("/srv/x", "../y", "/srv/y"),
        ("/srv/x", "/other/y", "/other/y"),
        ("https://u:p@h.example/x", "https://other.example/y", "https://other.example/y"),
    ],
)
def test_submodules_are_found_relative_to_their_parent(parent: str, url: str, full: str) -> None:
    assert giturl.of_submodule(giturl.parse(parent), url).full == full


@pytest.mark.parametrize("url", ["/etc", "file:///etc", "ext::sh -c id", "-x", "git@h.example"])
def test_a_submodule_may_not_reach_this_machine_or_run_things(url: str) -> None:
    with pytest.raises(Ended):
        giturl.of_submodule(giturl.parse("https://h.example/x"), url)

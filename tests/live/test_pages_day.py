"""A maintainer's day in a real browser, on a whole farm: Redis, workers and rpmbuild are all real."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser import Person, chromium
from tests.fetching import Answer, Server, http_server
from tests.packages import make_srpm
from tests.up import Up, farm_up, run_farm
from tests.waiting import until

pytestmark = pytest.mark.live
NAP_S = 6
_WITHIN_MS = 90_000


class Farm:
    """A farm in one process tree, a server with source packages, and a person who is logged in as a maintainer."""

    def __init__(self, up: Up, person: Person, sources: Server) -> None:
        self.up, self.person, self.sources = up, person, sources


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _token(up: Up, role: str) -> str:
    found = re.search(r"farm_\S+", run_farm(up.settings, "token", "new", "--role", role, "--actor", "ann").stdout)
    assert found
    return found[0]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Iterator[Farm]:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    data = tmp_path_factory.mktemp("f")
    (data / "demo").mkdir()
    (data / "demo" / "distribution").symlink_to(demo_distribution)
    env = {"FARM_ALLOW_NETWORKS": "127.0.0.0/8", "FARM_SERVER_PORT": "8780", "FARM_FLOWER_PORT": "0"}
    with ExitStack() as stack:
        browser = stack.enter_context(chromium())
        sources = stack.enter_context(http_server())
        up = stack.enter_context(farm_up(data, "--workers", "2", env=env))
        address = up.says("Pages and HTTP: ").partition("HTTP: ")[2].partition(";")[0]
        until(lambda: _answers(f"{address}/readyz"), "the server to answer")
        person = stack.enter_context(closing(Person(browser, address)))
        person.login(_token(up, "admin"))
        yield Farm(up, person, sources)
    shutil.rmtree(data, ignore_errors=True)


def _serve(farm: Farm, folder: Path, name: str) -> str:
    package = make_srpm(name, folder)
    farm.sources.answers[f"/{package.name}"] = Answer(package.read_bytes())
    return farm.sources.url(f"/{package.name}")


def _enqueue(farm: Farm, url: str, macros: str = "") -> str:
    """By the form of a new build; the path of its page."""
    page = farm.person.go("/")
    page.get_by_role("link", name="New build").click()
    page.get_by_label("a source package").check()
    page.get_by_label("URL").fill(url)
    page.get_by_label("Target").select_option("demo")
    page.get_by_label("x86_64").check()
    if macros:
        page.get_by_text("Options").click()
        page.get_by_label("Macros").fill(macros)
    page.get_by_role("button", name="Build", exact=True).click()
    page.wait_for_url(re.compile(r"/builds/\d+$"))
    return page.url.removeprefix(farm.person.address)


def test_a_day_of_a_maintainer(farm: Farm, tmp_path: Path) -> None:
    person, page = farm.person, farm.person.page
    # A build, whose log is watched to its end.
    nap = _enqueue(farm, _serve(farm, tmp_path, "naps"), f"nap_s {NAP_S}")
    expect(page.locator(".chain .s-running strong", has_text="build")).to_be_visible(timeout=_WITHIN_MS)
    page.locator("article", has_text="build x86_64").get_by_role("link", name="Log").click()
    log = page.locator("#log")
    expect(page.get_by_role("button", name="Follow")).to_have_attribute("aria-pressed", "true")
    expect(log).to_contain_text("it naps for", timeout=_WITHIN_MS)
    expect(log).to_contain_text("it woke up", timeout=_WITHIN_MS)
    expect(page.locator("#log-state")).to_have_text("succeeded", timeout=_WITHIN_MS)
    number = log.locator(".l > a").last.get_attribute("data-n")
    assert number is not None
    assert int(number) == log.locator(".l").count()
    expect(person.go(nap).locator(".head .pill")).to_have_text("succeeded", timeout=_WITHIN_MS)
    expect(page.get_by_role("heading", name="Root for x86_64")).to_be_visible()

    # A failure, whose line is found, and which is tried again.
    bad = _enqueue(farm, _serve(farm, tmp_path, "fails-build"))
    expect(page.locator(".why .reason")).to_contain_text("undeclared_name", timeout=_WITHIN_MS)
    expect(page.locator(".excerpt .is-it")).to_contain_text("undeclared_name")
    page.get_by_role("link", name="Open the log at this line").click()
    expect(page.locator("#log .is-marked")).to_contain_text("error: ‘undeclared_name’ undeclared")  # noqa: RUF001
    person.go(bad).get_by_role("button", name="Retry what failed").click()
    expect(page.get_by_role("status")).to_contain_text("Runs again: build x86_64")
    expect(page.get_by_text("2 attempts")).to_be_visible(timeout=_WITHIN_MS)

    # A build that is cancelled while it runs.
    long = _enqueue(farm, _serve(farm, tmp_path, "never-ends"))
    expect(page.locator(".chain .s-running strong", has_text="build")).to_be_visible(timeout=_WITHIN_MS)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .pill")).to_have_text("cancelled")
    assert long != bad

    # A host that is drained, and gets work again.
    person.go("/hosts").get_by_text("Drain this host").click()
    page.get_by_label("Reason").fill("a new kernel")
    page.get_by_role("button", name="Drain").click()
    expect(page.get_by_role("status")).to_contain_text("drained by ann: a new kernel")
    page.get_by_role("button", name="Give it work again").click()
    expect(page.locator(".tag.is-now")).to_have_text("gets work")

    # A search, a token, and the end of the day.
    page.keyboard.press("/")
    page.keyboard.type("fails-b\n")
    page.wait_for_url("**/package?name=fails-build")
    expect(page.locator(".plot")).to_have_count(1)
    person.go("/tokens").get_by_text("New token").click()
    page.get_by_label("Name").fill("CI")
    page.get_by_label("reader").check()
    page.get_by_role("button", name="Make it").click()
    secret = page.locator("#secret").inner_text()
    assert run_farm(farm.up.settings, "token", "list").stdout.count("CI") == 1
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Token").fill(secret)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator(".who")).to_contain_text("reader")
    expect(page.get_by_role("link", name="New build")).to_have_count(0)
    assert person.complaints == []

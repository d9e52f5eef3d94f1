"""The pages in a real browser, on a farm whose builds the test decides: hostile text, large logs, accessibility."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from farm.model.actor import Role
from tests.browser import DESKTOP, PHONE, Person, chromium
from tests.driven_farm import DrivenFarm, driven_farm
from tests.messages import worker_facts
from tests.served import served

HOSTILE = "<img src=x onerror=alert(1)>"
REASON = f"a.c:1: error: {HOSTILE}<script>alert(2)</script> \u202egnp.exe \x1b]8;;javascript:alert(3)\x07x"
PAGES = (
    "/",
    "/builds",
    "/builds/new",
    "/builds/{good}",
    "/builds/{bad}",
    "/builds/{running}",
    "/builds/{waiting}",
    "/builds/{bad}/log?step=build",
    "/builds/{bad}/log?step=build&q=error",
    "/builds/{waiting}/log",
    "/builds/{good}/root?arch=x86_64",
    "/search?q=",
    "/package?name=hello",
    "/me",
    "/hosts",
    "/queues",
    "/targets",
    "/targets/demo",
    "/repositories",
    "/repositories/demo?arch=x86_64",
    "/tokens",
    "/audit",
    "/nope",
)
#: Pages that between them have every element.
LARGE_PAGES = (
    "/",
    "/builds",
    "/builds/{bad}",
    "/builds/{bad}/log?step=build",
    "/package?name=hello",
    "/hosts",
    "/tokens",
)
_LINE = b"%07d gcc -O2 -c src/module.c -o build/module.o -Wall -Wextra -Iinclude -DSOME=%d\n"


@dataclass(frozen=True, kw_only=True)
class Site:
    driven: DrivenFarm
    address: str
    secret: str
    builds: dict[str, int]

    def path(self, path: str) -> str:
        return path.format(**self.builds)


def _build(driven: DrivenFarm, name: str) -> int:
    return driven.farm.enqueue(git=f"https://example.org/{name}.git", target="demo", arches=["x86_64"]).id


def _prepare(driven: DrivenFarm) -> dict[str, int]:
    good, bad, running, long = (_build(driven, name) for name in ("hello", HOSTILE, "hello", "long"))
    driven.finish(good)
    driven.to_build(bad)
    log = f"cc -c a.c\n\x1b[1;31m{HOSTILE}\x1b[0m <script>alert(4)</script>\n{REASON}\nmake: *** [all] Error 2\n"
    driven.fail(f"{bad}.build.x86_64.1", REASON, log.encode())
    driven.to_build(running)
    driven.start(f"{running}.build.x86_64.1")
    driven.to_build(long)
    lines = b"".join(_LINE % (number, number) for number in range(1, 1_250_001))
    driven.fail(
        f"{long}.build.x86_64.1",
        "a.c:7: error: no such thing",
        lines + b"a.c:7: error: no such thing\n" + lines[:200_000],
    )
    driven.farm._service._on.leases.announce(worker_facts("build@one"))  # type: ignore[attr-defined]
    driven.farm.drain_host("two", reason=HOSTILE, force=True)
    return {"good": good, "bad": bad, "running": running, "long": long, "waiting": _build(driven, HOSTILE)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with driven_farm(tmp_path_factory.mktemp("browser")) as driven, served(driven.settings) as address:
        secret = driven.farm.new_token(name=HOSTILE, roles=[Role.ADMIN], bearer="ann").secret
        yield Site(driven=driven, address=address, secret=secret, builds=_prepare(driven))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def _person(browser: Browser, site: Site, **more: Any) -> Person:
    person = Person(browser, site.address, **more)
    person.login(site.secret)
    return person


@pytest.fixture
def person(browser: Browser, site: Site) -> Iterator[Person]:
    with closing(_person(browser, site)) as found:
        yield found


@pytest.mark.parametrize(
    ("size", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "dark")], ids=["light", "dark", "phone"]
)
def test_each_page_is_accessible_and_fits(browser: Browser, site: Site, size: tuple[int, int], scheme: str) -> None:
    found: dict[str, object] = {}
    with closing(_person(browser, site, size=size, scheme=scheme)) as person:
        for path in PAGES if scheme == "light" else LARGE_PAGES:
            person.go(site.path(path))
            if findings := person.findings():
                found[path] = findings
            if person.is_too_wide():
                found[f"{path} is too wide"] = True
        assert person.complaints == []
    assert found == {}


def test_hostile_text_runs_nothing(site: Site, person: Person) -> None:
    for path in PAGES:
        page = person.go(site.path(path))
        assert page.locator("img, iframe, object, [onerror]").count() == 0, path
        assert page.locator("script:not([src^='/static/'])").count() == 0, path
        assert "\u202e" not in page.content(), path
    expect(person.go(site.path("/builds/{waiting}")).get_by_role("heading", level=1)).to_have_text(HOSTILE)
    log = person.go(site.path("/builds/{bad}/log?step=build")).locator("#log")
    expect(log.locator(".f1").first).to_have_text(HOSTILE)
    expect(log).to_contain_text("\\u202egnp.exe \\x1b]8;;javascript:alert(3)\\x07x")
    assert person.complaints == []


def test_a_policy_stops_a_script_that_got_into_a_page(site: Site, person: Person) -> None:
    page = person.go("/")
    page.evaluate(
        "const one = document.createElement('script'); one.textContent = 'document.title = \"taken\"';"
        "document.body.append(one)"
    )
    assert page.title() != "taken"
    assert any("Content Security Policy" in one for one in person.complaints)


def test_a_log_of_100_mb_is_scrolled_and_searched(site: Site, person: Person) -> None:
    page = person.go(site.path("/builds/{long}/log?step=build"))
    log = page.locator("#log")
    expect(log.locator(".l").last).to_contain_text("gcc")
    expect(page.locator("#log-size")).to_have_text("105 MiB")
    page.get_by_role("link", name="Failing line").click()
    expect(log.locator(".is-marked")).to_have_text("a.c:7: error: no such thing")
    expect(log.locator(".is-marked > a")).to_have_attribute("data-n", "1250001")
    for _ in range(30):
        log.evaluate("one => { one.scrollTop = 0 }")
        page.wait_for_timeout(60)
    expect(log.locator(".is-marked")).to_have_count(0)
    assert 1000 < log.locator(".l").count() < 20_000
    numbers = log.evaluate("one => [...one.querySelectorAll('.l > a')].map(a => Number(a.dataset.n))")
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    page.get_by_role("button", name="First lines").click()
    expect(log.locator(".l").first).to_contain_text("0000001 gcc")
    for _ in range(30):
        log.evaluate("one => { one.scrollTop = one.scrollHeight }")
        page.wait_for_timeout(60)
    assert log.locator(".l").count() < 20_000
    page.get_by_label("Search in this log").fill("DSOME=777777")
    page.keyboard.press("Enter")
    expect(page.locator("#log-hits li")).to_have_count(1)
    expect(log.locator(".is-marked")).to_contain_text("0777777 gcc")
    assert person.complaints == []


def test_a_link_to_a_line_leads_there(site: Site, person: Person) -> None:
    at = len(_LINE % (1, 1)) * 9
    page = person.go(site.path(f"/builds/{{long}}/log?step=build&at={at}#b{at}"))
    marked = page.locator("#log .is-marked")
    expect(marked).to_contain_text("0000010 gcc")
    marked.locator("a").click()
    assert page.url.endswith(f"&at={at}#b{at}")
    page.keyboard.press("End")
    page.locator("#log").focus()
    page.keyboard.press("End")
    expect(page.locator("#log .l").last).to_contain_text("gcc")


def test_pages_are_read_without_a_script(browser: Browser, site: Site) -> None:
    with closing(_person(browser, site, has_script=False)) as person:
        for path in PAGES:
            page = person.go(site.path(path))
            assert page.get_by_role("heading", level=1).is_visible(), path
        page = person.go(site.path("/builds/{bad}"))
        page.get_by_role("link", name="Open the log at this line").click()
        assert page.locator(".l:target").inner_text().startswith("a.c:1: error: <img")
        person.go(site.path("/builds/{long}/log?step=build&at=0"))
        page.get_by_role("link", name="Later lines").click()
        page.get_by_role("link", name="Earlier lines").click()
        page.get_by_label("Search in this log").fill("DSOME=77777")
        page.get_by_role("button", name="Search", exact=True).click()
        expect(page.locator("#log-hits li").first).to_contain_text("DSOME=77777")
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")


def test_a_page_follows_what_happens_without_a_reload(site: Site, person: Person) -> None:
    build = _build(site.driven, "followed")
    page = person.go(f"/builds/{build}")
    page.evaluate("window.isTheSame = true")
    site.driven.to_build(build)
    site.driven.start(f"{build}.build.x86_64.1")
    expect(page.locator(".chain .s-running").first).to_be_visible()
    site.driven.succeed(f"{build}.build.x86_64.1")
    site.driven.succeed(f"{build}.upload.x86_64.1")
    expect(page.locator(".head .pill")).to_have_text("succeeded")
    assert page.evaluate("window.isTheSame") is True
    assert person.complaints == []


def test_the_keyboard_suffices(site: Site, person: Person) -> None:
    page = person.go("/builds")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Search for a package, or a build's number")).to_be_focused()
    page.keyboard.type(f"{site.builds['good']}\n")
    page.wait_for_url(f"**/builds/{site.builds['good']}")

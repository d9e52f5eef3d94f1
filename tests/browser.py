"""Debian's Chromium, driven by Playwright, in front of the farm's pages."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

DESKTOP, PHONE = (1360, 900), (390, 844)
#: The findings of axe that a page may not have.
SERIOUS = ("serious", "critical")
_WITHIN_MS = 30_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips where there is no Chromium; fails instead where CI is set."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        message = "there is no chromium; run deploy/bootstrap browser"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


class Person:
    """A browser of one person. `complaints` are the errors of scripts and policies, and dialogs that were opened."""

    def __init__(
        self,
        browser: Browser,
        address: str,
        *,
        size: tuple[int, int] = DESKTOP,
        scheme: Any = "light",
        has_script: bool = True,
    ) -> None:
        self.address = address
        self.complaints: list[str] = []
        self.context: BrowserContext = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, java_script_enabled=has_script
        )
        self.context.set_default_timeout(_WITHIN_MS)
        self.page: Page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._hear)
        self.page.on("dialog", self._dismiss)

    def _hear(self, message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _dismiss(self, dialog: Any) -> None:
        self.complaints.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def login(self, secret: str) -> None:
        self.page.goto(f"{self.address}/login")
        self.page.get_by_label("Token").fill(secret)
        self.page.get_by_role("button", name="Log in").click()
        self.page.get_by_role("heading", name="Overview").wait_for()

    def go(self, path: str) -> Page:
        self.page.goto(f"{self.address}{path}")
        return self.page

    def is_too_wide(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))

    def findings(self) -> list[str]:
        """Each serious finding of axe, with the elements that it is about."""
        found: Sequence[dict[str, Any]] = Axe().run(self.page).response["violations"]
        return [
            f"{one['id']}: {', '.join(str(node['target']) for node in one['nodes'][:4])}"
            for one in found
            if one["impact"] in SERIOUS
        ]

    def close(self) -> None:
        self.context.close()

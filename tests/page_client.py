"""A person in front of the pages, without a browser: logs in, reads pages, sends their forms."""

import re
from html import unescape
from typing import Any

import httpx

_TOKEN = re.compile(r'name="_csrf_token" value="([^"]+)"')


class PageClient:
    """Follows no redirect. `form` sends the token of forms that the last page had."""

    def __init__(self, address: str, *, host: str | None = None) -> None:
        headers = {"accept": "text/html"} | ({"host": host} if host else {})
        self.address = address
        self.http = httpx.Client(base_url=address, trust_env=False, timeout=60, headers=headers)
        self.token = ""

    def close(self) -> None:
        self.http.close()

    def get(self, path: str, **more: Any) -> httpx.Response:
        answer = self.http.get(path, **more)
        if found := _TOKEN.search(answer.text):
            self.token = unescape(found[1])
        return answer

    def form(self, path: str, fields: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        return self.http.post(path, data={"_csrf_token": self.token} | (fields or {}), **more)

    def login(self, secret: str, after: str = "/") -> httpx.Response:
        self.get("/login")
        answer = self.form("/login", {"token": secret, "next": after})
        if answer.status_code == 303:
            self.get("/builds")
        return answer

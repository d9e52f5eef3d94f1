"""Files as answers: whole, in part, or not at all if the client has them already (RFC 9110)."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from litestar import Request, Response
from litestar.response import Stream

CHUNK_BYTES = 2**18
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True, kw_only=True)
class Content:
    """A file: its size, a text that changes with its content, and a way to read at most so many bytes at an offset.

    `read` opens the file for each part, so that a client that stays away in a download holds none.
    """

    size_bytes: int
    tag: str
    read: Callable[[int, int], bytes]
    media_type: str = "application/octet-stream"
    sha256: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


def answer(request: Request[Any, Any, Any], content: Content, *, offset: int = 0) -> Response[Any]:
    """The content from `offset` on, or the part of it that the request asks for; 304 if the client has it."""
    etag = f'"{content.tag}"'
    headers = {"etag": etag, "accept-ranges": "bytes", **content.headers}
    if content.sha256 is not None:
        headers["repr-digest"] = f"sha-256=:{b64encode(bytes.fromhex(content.sha256)).decode()}:"
    if _names(request.headers.get("if-none-match"), etag):
        return Response(b"", status_code=304, headers=headers)
    first, last, status = min(offset, content.size_bytes), content.size_bytes - 1, 200
    asked = request.headers.get("range")
    if asked is not None and not offset and request.headers.get("if-range", etag) == etag:
        found = _part(asked, content.size_bytes)
        if found is not None and found[0] > found[1]:
            headers["content-range"] = f"bytes */{content.size_bytes}"
            return Response(b"", status_code=416, headers=headers)
        if found is not None:
            first, last, status = found[0], found[1], 206
            headers["content-range"] = f"bytes {first}-{last}/{content.size_bytes}"
    headers["content-length"] = str(last - first + 1)
    return Stream(_chunks(content, first, last), status_code=status, media_type=content.media_type, headers=headers)


def _names(given: str | None, etag: str) -> bool:
    """Whether an If-None-Match names this tag."""
    if given is None:
        return False
    return given.strip() == "*" or etag in (one.strip().removeprefix("W/") for one in given.split(","))


def _part(asked: str, size: int) -> tuple[int, int] | None:
    """The first and the last byte, which comes before the first for a part that the file does not have; None for a
    request to be passed over, as one of several parts is.
    """
    found = _RANGE.fullmatch(asked.replace(" ", ""))
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        length = int(found[2])
        return (max(0, size - length), size - 1) if length and size else (0, -1)
    first, last = int(found[1]), int(found[2]) if found[2] else size - 1
    if found[2] and last < first:
        return None
    return (first, min(last, size - 1)) if first < size else (0, -1)


def _chunks(content: Content, first: int, last: int) -> Iterator[bytes]:
    while first <= last:
        data = content.read(first, min(CHUNK_BYTES, last - first + 1))
        if not data:  # it was replaced: the client sees an answer that is too short
            raise OSError(f"a file ended at its byte {first} before its last byte {last}")
        yield data
        first += len(data)

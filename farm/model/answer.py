"""The answer to a request that its client gave a key, so that it may repeat the request."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """A request that was made before. `status` is None while it runs; `answer` is None if it is not kept."""

    fingerprint: str
    at: datetime
    status: int | None
    media_type: str | None
    answer: bytes | None

"""An upload: a source package that a client sends to the farm's server in parts."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Upload:
    """`offset` is the number of bytes that the server has. The upload and its parts are gone after `expires_at`.

    Once it is finished, its actor can enqueue builds of it by its sha256.
    """

    id: int
    actor: str
    filename: str
    size_bytes: int
    sha256: str
    target: str
    offset: int = 0
    is_finished: bool = False
    expires_at: datetime

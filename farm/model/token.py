"""An access token as the farm keeps it: without the secret, of which the database has a hash."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from farm.model.actor import Role

EXPIRES_DEFAULT = timedelta(days=90)
EXPIRES_MAX = timedelta(days=366)


@dataclass(frozen=True, kw_only=True)
class Token:
    """`actor` is the name as which its bearer acts; `created_by` is the actor who made it. With a `project`, its roles
    hold in that project alone.

    `last_used_at` is exact to a minute. A token is valid until it expires or is revoked.
    """

    id: int
    name: str
    actor: str
    roles: tuple[Role, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: str | None = None
    project: str | None = None

    def state(self, now: datetime) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at <= now else "valid"


@dataclass(frozen=True, kw_only=True)
class NewToken:
    """A token with its secret text, which is shown once."""

    token: Token
    secret: str

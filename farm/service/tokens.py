"""Access tokens: made, checked, and turned into the actor as which their bearer acts.

A token is `farm_NUMBER_SECRET`. The secret has 256 random bits, so one SHA-256 of it is as hard to invert as a slow
hash; the database has that hash alone. The number finds the row, and the hashes are compared in constant time.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from farm.errors import BadRequest, FarmNotRunning, NotLoggedIn
from farm.model.actor import Actor, Role
from farm.model.project import MEMBER_ROLES
from farm.model.token import EXPIRES_MAX, NewToken, Token
from farm.service.request import check_owner
from farm.store.tokens import TokenStore

_SECRET_BYTES = 32
_NAME_MAX = 100
#: The number has at most as many digits as a number in every database.
_TOKEN = re.compile(r"farm_([1-9][0-9]{0,17})_([A-Za-z0-9_-]{43})")
_DURATION = re.compile(r"([1-9][0-9]{0,5})(h|d)")
#: The roles that a token for one project can have.
_PROJECT_ROLES = (Role.READER, *MEMBER_ROLES)
_NO_HASH = "0" * 64


def parse_expiry(text: str) -> timedelta:
    """`12h` or `90d`. Raises BadRequest.

    >>> parse_expiry("90d")
    datetime.timedelta(days=90)
    """
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise BadRequest(f"--expires {text[:80]!r} is no time; use 12h or 90d")
    return timedelta(hours=int(found[1]) * (24 if found[2] == "d" else 1))


def make_token(
    store: TokenStore,
    *,
    by: Actor,
    name: str,
    roles: Collection[Role],
    actor: str | None,
    expires: timedelta,
    project: str | None = None,
) -> NewToken:
    """A new token of these roles, valid for this time from now; its bearer acts as `actor`, or as its maker. With a
    `project`, which exists, the roles hold there alone.

    Raises BadRequest, naming the value.
    """
    if not roles:
        raise BadRequest(f"a token has at least one role; the roles are {', '.join(Role)}")
    if project is not None and (wrong := [role for role in roles if role not in _PROJECT_ROLES]):
        raise BadRequest(
            f"the role {wrong[0]} is one of the whole farm, and this token is for the project {project}; "
            f"use {', '.join(_PROJECT_ROLES)}, or leave --project out"
        )
    if not timedelta(0) < expires <= EXPIRES_MAX:
        raise BadRequest(f"a token cannot be valid for {expires}; use at most {EXPIRES_MAX.days} days")
    if not name or len(name) > _NAME_MAX or not name.isprintable():
        raise BadRequest(f"a token's name has 1 to {_NAME_MAX} printable characters, and {name[:80]!r} has not")
    now, secret = datetime.now(UTC), secrets.token_urlsafe(_SECRET_BYTES)
    token = Token(
        id=0,
        name=name,
        actor=check_owner(by.name if actor is None else actor),
        roles=tuple(role for role in Role if role in roles),
        created_at=now,
        created_by=by.name,
        expires_at=now + expires,
        project=project,
    )
    kept = store.add_token(token, sha256=_hash(secret))
    return NewToken(token=kept, secret=f"farm_{kept.id}_{secret}")


def bearer(store: TokenStore, text: str) -> Token:
    """The valid token that this text is, and note that it was used. Raises NotLoggedIn.

    The message is the same for an unknown token and a wrong secret, and has no part of the text.
    """
    parsed = _TOKEN.fullmatch(text)
    if parsed is None:
        raise NotLoggedIn("that is not a token of a farm; a token begins with farm_ and `farm token new` prints it")
    found = store.token_and_hash(int(parsed[1]))
    is_right = hmac.compare_digest(found[1] if found else _NO_HASH, _hash(parsed[2]))
    if found is None or not is_right:
        raise NotLoggedIn("this farm does not know that token; ask an administrator of the farm for one")
    return _valid(store, found[0])


def fingerprint(text: str) -> str:
    """A text for a session, from which neither the secret nor its hash in the database can be found."""
    parsed = _TOKEN.fullmatch(text)
    return _hash(_hash(parsed[2])) if parsed else ""


def bearer_of_session(store: TokenStore, token_id: int, proof: str) -> Token:
    """The valid token with this number and fingerprint, as `bearer` gives it. Raises NotLoggedIn."""
    found = store.token_and_hash(token_id)
    if found is None or not hmac.compare_digest(_hash(found[1]), proof):
        raise NotLoggedIn("the token of this session is not one of this farm; log in again")
    return _valid(store, found[0])


def _valid(store: TokenStore, token: Token) -> Token:
    """The same token, whose use is noted. Raises NotLoggedIn if it is revoked or expired."""
    now = datetime.now(UTC)
    if (state := token.state(now)) != "valid":
        at = token.revoked_at or token.expires_at
        raise NotLoggedIn(
            f"token {token.id} of {token.actor} is {state} since {at:%Y-%m-%d %H:%M} UTC; "
            "ask an administrator of the farm for another"
        )
    store.note_use(token, now)
    return token


def is_still_valid(store: TokenStore, token: Token) -> bool:
    """Whether the token is neither revoked nor expired; true while the database does not answer."""
    try:
        found = store.token_and_hash(token.id)
    except FarmNotRunning:
        return True
    return found is not None and found[0].state(datetime.now(UTC)) == "valid"


def actor_of(token: Token, origin: str = "") -> Actor:
    """The bearer acts from elsewhere, so it has no user on the machine of the farm."""
    return Actor(name=token.actor, roles=frozenset(token.roles), project=token.project, origin=origin)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()

"""The verbs and questions of accounts: tokens, and the audit log. Each act is checked and recorded."""

import logging
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from farm.model.actor import Actor, Role
from farm.model.audit import AuditRecord
from farm.model.token import EXPIRES_DEFAULT, NewToken, Token
from farm.service.acting import Acting
from farm.service.audit import check_verb
from farm.service.permissions import Verb, check

_log = logging.getLogger(__name__)


class AccountVerbs(Acting):
    """The verbs of tokens, and the questions about them and about the audit log."""

    def new_token(
        self,
        actor: Actor,
        *,
        name: str,
        roles: Collection[Role],
        bearer: str | None = None,
        expires: timedelta = EXPIRES_DEFAULT,
        project: str | None = None,
    ) -> NewToken:
        """A token with whose secret `bearer`, or the actor if None, acts in these roles; with a `project` there alone.

        Raises BadRequest, and NotFound for an unknown project.
        """
        from farm.service.tokens import make_token  # a command that only reads builds needs none of it

        with self._act(actor, Verb.MAKE_TOKENS, f"token of {bearer or actor.name}") as record:
            if project is not None:
                self.projects.places.of(actor, project)
            made = make_token(
                self._store, by=actor, name=name, roles=roles, actor=bearer, expires=expires, project=project
            )
            record.subject = f"token {made.token.id} of {made.token.actor}"
            where = f" in {project}" if project else ""
            record.detail = f"{', '.join(made.token.roles)}{where}, until {made.token.expires_at:%Y-%m-%d %H:%M}"
        _log.info("%s made token %d for %s", actor.name, made.token.id, made.token.actor, extra={"action": "token"})
        return made

    def tokens(self, actor: Actor) -> tuple[Token, ...]:
        """All tokens by number, with the expired and the revoked ones."""
        check(actor, Verb.LIST_TOKENS)
        return self._store.tokens()

    def revoke_token(self, actor: Actor, token_id: int) -> Token:
        """From now on the token gives no right. Raises NotFound, and WrongState for a token that is revoked already."""
        with self._act(actor, Verb.REVOKE_TOKENS, f"token {token_id}") as made:
            revoked = self._store.revoke_token(token_id, by=actor.name, now=datetime.now(UTC))
            made.subject = f"token {token_id} of {revoked.actor}"
        _log.info("%s revoked token %d", actor.name, token_id, extra={"action": "revoke"})
        return revoked

    def audit(
        self,
        actor: Actor,
        *,
        by: str | None = None,
        verb: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> tuple[AuditRecord, ...]:
        """Records of the audit log, newest first, of the acts of `by`; only those older than the record `before`.

        Raises BadRequest for an unknown verb.
        """
        check(actor, Verb.READ_AUDIT)
        return self._store.audit(actor=by, verb=check_verb(verb), since=since, limit=limit, before=before)

    def bearer(self, secret: str) -> Token:
        """The valid token with this text. Raises NotLoggedIn."""
        from farm.service.tokens import bearer

        return bearer(self._store, secret)

    def is_valid(self, token: Token) -> bool:
        """Whether the token, which was valid, still is, as far as the database answers."""
        from farm.service.tokens import is_still_valid

        return is_still_valid(self._store, token)

    def session(self, token_id: int, fingerprint: str) -> Token:
        """The valid token of a session that began with `bearer`, by its number and fingerprint. Raises NotLoggedIn."""
        from farm.service.tokens import bearer_of_session

        return bearer_of_session(self._store, token_id, fingerprint)

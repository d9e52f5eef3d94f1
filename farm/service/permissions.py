"""Decides which actor may do what: one table of verbs and roles, and one check of it.

Every verb of the service that changes something goes through `farm.service.audit.act`, which calls `check` before it
does anything. All questions take the one verb READ, which a client
checks once for its actor, and a server for each request. The modes of files are farm/permissions.py's, the accounts of
Redis farm/broker/roles.py's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from farm.errors import NotPermitted
from farm.model.actor import Actor, Role, with_included


class Verb(StrEnum):
    """The value completes the sentence `NAME may not …`."""

    READ = "read what the farm has"
    ENQUEUE = "enqueue builds"
    HURRY = "enqueue builds that go before those of others (a priority above 0)"
    CANCEL = "cancel builds"
    RETRY = "retry builds"
    DRAIN = "drain hosts"
    UNDRAIN = "undrain hosts"
    ROLL_BACK = "roll back repositories"
    COLLECT = "remove artifacts"
    MAKE_TOKENS = "make tokens"
    LIST_TOKENS = "list tokens"
    REVOKE_TOKENS = "revoke tokens"
    READ_AUDIT = "read the audit log"

    @property
    def word(self) -> str:
        """Its name in the audit log: `make-tokens`."""
        return self.name.lower().replace("_", "-")

    @property
    def changes(self) -> bool:
        """Whether it changes something: each such act is in the audit log."""
        return self not in (Verb.READ, Verb.LIST_TOKENS, Verb.READ_AUDIT)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The role that a verb takes; `for_others` on a build of another owner, if that is not the same."""

    role: Role
    for_others: Role | None = None


_ADMINS = Rule(role=Role.ADMIN)
_OPERATORS = Rule(role=Role.OPERATOR)
_MAINTAINERS = Rule(role=Role.MAINTAINER)
_OWN_BUILDS = Rule(role=Role.PACKAGER, for_others=Role.MAINTAINER)
RULES: Mapping[Verb, Rule] = {
    Verb.READ: Rule(role=Role.READER),
    Verb.ENQUEUE: Rule(role=Role.PACKAGER, for_others=Role.ADMIN),
    Verb.HURRY: _MAINTAINERS,
    Verb.CANCEL: _OWN_BUILDS,
    Verb.RETRY: _OWN_BUILDS,
    Verb.DRAIN: _OPERATORS,
    Verb.UNDRAIN: _OPERATORS,
    Verb.ROLL_BACK: _MAINTAINERS,
    Verb.COLLECT: _OPERATORS,
    Verb.MAKE_TOKENS: _ADMINS,
    Verb.LIST_TOKENS: _ADMINS,
    Verb.REVOKE_TOKENS: _ADMINS,
    Verb.READ_AUDIT: _OPERATORS,
}


def is_admin(actor: Actor) -> bool:
    """True for an actor that may use every verb on everything."""
    return Role.ADMIN in actor.roles


def check(actor: Actor, verb: Verb, *, owner: str | None = None) -> None:
    """`owner` is the owner of the builds that the verb is about. Raises NotPermitted, naming actor, verb and missing
    role.
    """
    rule = RULES[verb]
    is_of_another = owner not in (None, actor.name)
    role = (rule.for_others or rule.role) if is_of_another else rule.role
    if role in with_included(actor.roles):
        return
    whose = f" of owner {owner}" if is_of_another else ""
    has = ", ".join(sorted(actor.roles)) or "none"
    raise NotPermitted(
        f"{actor.name} may not {verb}{whose}: the role {role} is missing (roles of {actor.name}: {has}); "
        "ask an administrator of the farm for that role, or to do it for you"
    )

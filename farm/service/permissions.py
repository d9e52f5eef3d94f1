"""Decides which actor may do what: one table of verbs and roles, and one check of it.

A right hangs on the farm or on a project. Every verb of the service that changes something goes through
`farm.service.audit.act`, which calls `check` before it does anything. All questions take the one verb READ, which a
client checks once for its actor, and a server for each request; those about a private project take SEE. The modes of
files are farm/permissions.py's, the accounts of Redis farm/broker/roles.py's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from farm.errors import NotPermitted
from farm.model.actor import Actor, Role, with_included
from farm.model.place import DEFAULT_PROJECT


class Verb(StrEnum):
    """The value completes the sentence `NAME may not …`."""

    READ = "read what the farm has"
    SEE = "see a private project"
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
    MAKE_PROJECTS = "make projects"
    REMOVE_PROJECTS = "remove and restore projects"
    SET_PROJECT = "change the settings of a project"
    GRANT = "grant and revoke roles"
    CHANGE_PACKAGES = "add and remove packages of a project"
    READ_AUDIT = "read the audit log"

    @property
    def word(self) -> str:
        """Its name in the audit log: `make-tokens`."""
        return self.name.lower().replace("_", "-")

    @property
    def changes(self) -> bool:
        """Whether it changes something: each such act is in the audit log."""
        return self not in (Verb.READ, Verb.SEE, Verb.LIST_TOKENS, Verb.READ_AUDIT)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The role that a verb takes; `for_others` on a build of another owner, if that is not the same. The role is the
    actor's in the project that the verb is about, or on the farm with `is_on_farm`."""

    role: Role
    for_others: Role | None = None
    is_on_farm: bool = False


_ADMINS = Rule(role=Role.ADMIN, is_on_farm=True)
_OPERATORS = Rule(role=Role.OPERATOR, is_on_farm=True)
_PROJECT_MAINTAINERS = Rule(role=Role.MAINTAINER)
_OWN_BUILDS = Rule(role=Role.PACKAGER, for_others=Role.MAINTAINER)
RULES: Mapping[Verb, Rule] = {
    Verb.READ: Rule(role=Role.READER, is_on_farm=True),
    Verb.SEE: Rule(role=Role.READER),
    Verb.ENQUEUE: Rule(role=Role.PACKAGER, for_others=Role.ADMIN),
    Verb.HURRY: Rule(role=Role.MAINTAINER, is_on_farm=True),
    Verb.CANCEL: _OWN_BUILDS,
    Verb.RETRY: _OWN_BUILDS,
    Verb.DRAIN: _OPERATORS,
    Verb.UNDRAIN: _OPERATORS,
    Verb.ROLL_BACK: _PROJECT_MAINTAINERS,
    Verb.COLLECT: _OPERATORS,
    Verb.MAKE_TOKENS: _ADMINS,
    Verb.LIST_TOKENS: _ADMINS,
    Verb.REVOKE_TOKENS: _ADMINS,
    Verb.READ_AUDIT: _OPERATORS,
    Verb.MAKE_PROJECTS: _ADMINS,
    Verb.REMOVE_PROJECTS: _ADMINS,
    Verb.SET_PROJECT: _PROJECT_MAINTAINERS,
    Verb.GRANT: _PROJECT_MAINTAINERS,
    Verb.CHANGE_PACKAGES: _PROJECT_MAINTAINERS,
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A project as an actor meets it: `member` is the actor's role as its member, None without one."""

    project: str = DEFAULT_PROJECT
    member: Role | None = None
    is_private: bool = False


_DEFAULT = Place()
#: As whom the farm's own processes look: no build is hidden from them.
OWN_PROCESS = Actor(name="", roles=frozenset({Role.ADMIN}))


def is_admin(actor: Actor) -> bool:
    """True for an actor that may use every verb on everything."""
    return actor.project is None and Role.ADMIN in actor.roles


def roles_on_farm(actor: Actor) -> frozenset[Role]:
    """A token for one project lets its bearer read what is public, and no more."""
    if actor.project is None:
        return actor.roles
    return frozenset({Role.READER}) if actor.roles else frozenset()


def roles_in(actor: Actor, place: Place) -> frozenset[Role]:
    """The actor's roles in a project. In the default one they are those on the farm; in each other one those of a
    member, or of a token for it."""
    if actor.project == place.project or (actor.project is None and place.project == DEFAULT_PROJECT):
        return actor.roles
    readers = frozenset({Role.READER}) & with_included(roles_on_farm(actor))
    own = frozenset() if place.is_private else readers
    if actor.project is not None:
        return own
    member = frozenset({place.member}) if place.member is not None else frozenset()
    return own | member | (actor.roles & {Role.ADMIN})


def may(actor: Actor, verb: Verb, *, owner: str | None = None, place: Place = _DEFAULT) -> bool:
    """Whether `check` passes."""
    return _missing(actor, verb, owner, place) is None


def check(actor: Actor, verb: Verb, *, owner: str | None = None, place: Place = _DEFAULT) -> None:
    """`owner` is the owner of the builds that the verb is about, and `place` their project, or the project itself.

    Raises NotPermitted, naming actor, verb and missing role.
    """
    role = _missing(actor, verb, owner, place)
    if role is None:
        return
    is_here = not RULES[verb].is_on_farm and place.project != DEFAULT_PROJECT
    whose = f" of owner {owner}" if owner not in (None, actor.name) else ""
    where = f" in the project {place.project}" if is_here else ""
    has = ", ".join(sorted(_roles(actor, verb, place))) or "none"
    ask = "ask an administrator of the farm for that role, or to do it for you"
    if is_here and role in (Role.PACKAGER, Role.MAINTAINER):
        ask = f"ask a maintainer of the project for `farm project grant {place.project} {actor.name} {role}`"
    if actor.project is not None and (RULES[verb].is_on_farm or actor.project != place.project):
        ask = f"the token is for the project {actor.project} alone; use another one"
    raise NotPermitted(
        f"{actor.name} may not {verb}{whose}{where}: the role {role} is missing (roles of {actor.name}"
        f"{' there' if is_here else ''}: {has}); {ask}"
    )


def _missing(actor: Actor, verb: Verb, owner: str | None, place: Place) -> Role | None:
    """The role that the actor lacks for it; None if it lacks none."""
    rule = RULES[verb]
    role = (rule.for_others or rule.role) if owner not in (None, actor.name) else rule.role
    return None if role in with_included(_roles(actor, verb, place)) else role


def _roles(actor: Actor, verb: Verb, place: Place) -> frozenset[Role]:
    return roles_on_farm(actor) if RULES[verb].is_on_farm else roles_in(actor, place)

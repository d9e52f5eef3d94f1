"""Finds the place in which an actor acts: a project, and the actor's role there. Hides private projects.

Not which role a verb takes (permissions.py), nor changes of projects (projects.py).
"""

import difflib

from farm.errors import NotFound, WrongState
from farm.model.actor import Actor
from farm.model.place import DEFAULT_PROJECT
from farm.model.project import PROJECT_NAME
from farm.service.permissions import Place, Verb, is_admin, may
from farm.store.projects import ProjectStore

_SHOWN = 20


class Places:
    """The projects of a farm, as its actors may see them."""

    def __init__(self, store: ProjectStore) -> None:
        self._store = store

    def of(self, actor: Actor | None, project: str, *, with_removed: bool = False) -> Place:
        """The project as the actor meets it; an actor None sees what is public. The default project costs no query.

        Raises NotFound for a project that does not exist or that the actor may not see, naming those that it may;
        WrongState for a removed one, unless `with_removed`.
        """
        if project == DEFAULT_PROJECT:
            return Place()
        found = (
            self._store.membership(project, actor.name if actor else "") if PROJECT_NAME.fullmatch(project) else None
        )
        if found is None:
            raise self._unknown(actor, project)
        place = Place(project=project, member=found.role if actor else None, is_private=found.is_private)
        if place.is_private and (actor is None or not may(actor, Verb.SEE, place=place)):
            raise self._unknown(actor, project)
        if found.is_removed and not with_removed:
            raise WrongState(f"the project {project} was removed; `farm project restore {project}` brings it back")
        return place

    def for_builds(self, actor: Actor) -> Place:
        """A place where the actor may enqueue builds, if there is one; else the default project. The projects of the
        builds are checked when they are known."""
        if may(actor, Verb.ENQUEUE):
            return Place()
        if actor.project is not None:
            return Place(project=actor.project)
        found = self._store.memberships(actor.name)
        return Place(project=found[0][0], member=found[0][1]) if found else Place()

    def sees(self, actor: Actor | None, project: str) -> bool:
        """Whether the actor may see builds of this project, which exists."""
        try:
            self.of(actor, project, with_removed=True)
        except NotFound:
            return False
        return True

    def hidden_from(self, actor: Actor | None) -> frozenset[str]:
        """The projects that the actor may not see."""
        if actor is not None and is_admin(actor):
            return frozenset()
        hidden = self._store.hidden_from(actor.name if actor is not None and actor.project is None else "")
        return hidden - {actor.project} if actor is not None and actor.project is not None else hidden

    def _unknown(self, actor: Actor | None, project: str) -> NotFound:
        hidden = self.hidden_from(actor)
        names = [one.name for one in self._store.projects() if one.name not in hidden]
        close = difflib.get_close_matches(project, names, n=3, cutoff=0.6)
        meant = f"did you mean {' or '.join(close)}? " if close else ""
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return NotFound(f"there is no project {project[:80]!a}; {meant}there are {', '.join(names[:_SHOWN])}{more}")

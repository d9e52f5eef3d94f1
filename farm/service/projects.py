"""The verbs and questions of projects, their members and their packages. A verb checks the actor's permission first."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Unpack, cast

from farm.config import Settings
from farm.errors import BadRequest, NotFound, WrongState
from farm.model.actor import Actor, Role
from farm.model.place import DEFAULT_PROJECT
from farm.model.project import (
    MEMBER_ROLES,
    PACKAGE_NAME,
    PROJECT_NAME,
    Project,
    ProjectChange,
    ProjectEdit,
    ProjectPackage,
)
from farm.service.audit import act
from farm.service.permissions import Place, Verb
from farm.service.places import Places
from farm.service.request import (
    PackageArguments,
    RequestArguments,
    check_names,
    check_owner,
    make_package,
    target_in,
    with_package,
)
from farm.store.store import Store
from farm.targets.load import find_target

#: A root loads the metadata of all of them.
BUILDS_ON_MAX = 20
_TITLE_MAX = 200
_NAMES_MAX = 200


class Projects:
    """Projects for several actors at a time. A private project does not exist for an actor who may not see it."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self.places = Places(store)

    # --- questions ----------------------------------------------------------------------------------------------

    def all(self, viewer: Actor | None = None) -> tuple[Project, ...]:
        """The projects that the viewer may see, by name, without removed ones."""
        hidden = self.places.hidden_from(viewer)
        return tuple(one for one in self._store.projects() if one.name not in hidden)

    def one(self, name: str, viewer: Actor | None = None) -> Project:
        """Also a removed one. Raises NotFound, naming the projects that the viewer may see."""
        self.places.of(viewer, name, with_removed=True)
        return self._store.project(name)

    def packages(self, project: str, viewer: Actor | None = None) -> tuple[ProjectPackage, ...]:
        """By name. Raises NotFound."""
        self.places.of(viewer, project, with_removed=True)
        return self._store.packages(project)

    def package(self, project: str, name: str, viewer: Actor | None = None) -> ProjectPackage:
        """Raises NotFound."""
        self.places.of(viewer, project, with_removed=True)
        return self._store.package(project, _package_name(name))

    def completed(self, asked: RequestArguments) -> RequestArguments:
        """The arguments of a request, with the target of its project if that has one alone, and those of its package.

        The caller has checked that the actor sees the project. Raises BadRequest, NotFound, UnknownTarget, UnknownArch;
        TypeError for an argument that no request has.
        """
        check_names(asked)
        name, package = asked.get("project") or DEFAULT_PROJECT, asked.get("package")
        if name == DEFAULT_PROJECT and package is None:
            return asked
        target = target_in(self._store.project(name), asked.get("target"))
        completed = cast("RequestArguments", {**asked, "target": target})
        if package is None or target is None:
            return completed
        found = self._store.package(name, _package_name(package))
        return with_package(found, find_target(self._settings, target), completed)

    def check_target(self, project: str, target: str) -> None:
        """Raises BadRequest for a target that the project does not build for."""
        if project != DEFAULT_PROJECT:
            target_in(self._store.project(project), target)

    # --- verbs --------------------------------------------------------------------------------------------------

    def new(self, actor: Actor, name: str, change: ProjectChange) -> Project:
        """Raises BadRequest, UnknownTarget, NotFound, and WrongState for a name that a project has or had."""
        with act(self._store, actor, Verb.MAKE_PROJECTS, _subject(name)):
            if not PROJECT_NAME.fullmatch(name):
                raise BadRequest(f"{name[:80]!a} is no project's name, which has up to 64 of a-z, 0-9 and -")
            made = Project(name=name, created_at=datetime.now(UTC), created_by=actor.name)
            made = self._changed(made, change, {one.name for one in self.all(actor)})
            self._store.add_project(made)
        return made

    def set(self, actor: Actor, name: str, change: ProjectChange) -> ProjectEdit:
        """Change settings. Raises NotFound, WrongState, BadRequest, UnknownTarget."""
        detail = ", ".join(change.given)
        with act(self._store, actor, Verb.SET_PROJECT, _subject(name), place=self._place(actor, name), detail=detail):
            _check_not_default(name, "its settings are fixed")
            hidden = self.places.hidden_from(actor)

            def changed(project: Project, others: Mapping[str, Project]) -> Project:
                _check_no_cycle(name, change.builds_on or (), others)
                # A name that is there already may stay, also by a person who does not see that project.
                known = others.keys() - (hidden - set(project.builds_on))
                return self._changed(project, change, known)

            return self._store.change_project(name, changed)

    def grant(self, actor: Actor, name: str, member: str, role: Role) -> ProjectEdit:
        """Make an actor a member, or give a member another role. Raises NotFound, WrongState, BadRequest."""
        detail = f"{role} to {member}"
        with act(self._store, actor, Verb.GRANT, _subject(name), place=self._place(actor, name), detail=detail):
            _check_not_default(name, "its rights are the roles of tokens (`farm token new`)")
            if role not in MEMBER_ROLES:
                raise BadRequest(f"a member of a project cannot be {role}; the roles are {', '.join(MEMBER_ROLES)}")
            now = datetime.now(UTC)
            return self._store.set_member(name, check_owner(member), role, by=actor.name, now=now)

    def revoke(self, actor: Actor, name: str, member: str) -> ProjectEdit:
        """Take an actor's role in a project away. Raises NotFound, also for an actor who is no member; WrongState."""
        detail = f"from {member}"
        with act(self._store, actor, Verb.GRANT, _subject(name), place=self._place(actor, name), detail=detail):
            now = datetime.now(UTC)
            edit = self._store.set_member(name, check_owner(member), None, by=actor.name, now=now)
            if edit.before.members == edit.after.members:
                raise NotFound(
                    f"{member} is no member of the project {name}; `farm project show {name}` lists its members"
                )
            return edit

    def remove(self, actor: Actor, name: str) -> ProjectEdit:
        """Hide a project: it takes no more builds. Its builds, repositories, members and packages stay for `restore`.

        Raises NotFound, and WrongState while another project builds on it, or when it is removed.
        """

        def removed(project: Project, others: Mapping[str, Project]) -> Project:
            if users := sorted(other.name for other in others.values() if name in other.builds_on):
                raise WrongState(
                    f"{', '.join(users)} builds on the project {name}; take it off there first, with "
                    f"`farm project set {users[0]} --builds-on …` or --no-builds-on"
                )
            return replace(project, removed_at=datetime.now(UTC), removed_by=actor.name)

        with act(self._store, actor, Verb.REMOVE_PROJECTS, _subject(name), detail="remove"):
            self.places.of(actor, name)
            _check_not_default(name, "it cannot be removed")
            return self._store.change_project(name, removed)

    def restore(self, actor: Actor, name: str) -> ProjectEdit:
        """Bring a removed project back. Raises NotFound, and WrongState for one that is not removed, or that builds on
        one that is."""

        def restored(project: Project, others: Mapping[str, Project]) -> Project:
            if project.removed_at is None:
                raise WrongState(f"the project {name} is not removed")
            if missing := [one for one in project.builds_on if one not in others]:
                raise WrongState(
                    f"the project {name} builds on {missing[0]}, which was removed; "
                    f"restore it first: farm project restore {missing[0]}"
                )
            return replace(project, removed_at=None, removed_by=None)

        with act(self._store, actor, Verb.REMOVE_PROJECTS, _subject(name), detail="restore"):
            self.places.of(actor, name, with_removed=True)
            return self._store.change_project(name, restored)

    def add_package(
        self, actor: Actor, project: str, name: str, *, replaces: bool = False, **asked: Unpack[PackageArguments]
    ) -> ProjectPackage:
        """Keep the arguments of a build under a name, after all checks. Builds nothing, and stores no file.

        Raises NotFound, BadRequest, BadSource, UnknownArch; WrongState for a name that is there, unless it replaces it.
        """
        place, detail = self._place(actor, project), f"add {name}"
        with act(self._store, actor, Verb.CHANGE_PACKAGES, _subject(project), place=place, detail=detail):
            found = self._store.project(project)
            targets = [find_target(self._settings, one) for one in found.targets]
            source, arches, options = make_package(targets, uid=actor.uid, **asked)
            package = ProjectPackage(
                project=project,
                name=_package_name(name),
                source=source,
                arches=arches,
                options=options,
                added_at=datetime.now(UTC),
                added_by=actor.name,
            )
            self._store.add_package(package, replaces=replaces)
        return package

    def remove_package(self, actor: Actor, project: str, name: str) -> ProjectPackage:
        """Returns the package that is gone; its builds stay. Raises NotFound, WrongState."""
        place, detail = self._place(actor, project), f"remove {name}"
        with act(self._store, actor, Verb.CHANGE_PACKAGES, _subject(project), place=place, detail=detail):
            return self._store.remove_package(project, _package_name(name))

    def _place(self, actor: Actor, project: str) -> Callable[[], Place]:
        return partial(self.places.of, actor, project)

    def _changed(self, project: Project, change: ProjectChange, known: Collection[str]) -> Project:
        """The project with new values. `known` are the projects that it may build on. Raises BadRequest, NotFound,
        UnknownTarget."""
        changed = replace(project, **change.given)
        if len(changed.title) > _TITLE_MAX or not changed.title.isprintable():
            raise BadRequest(
                f"--title has at most {_TITLE_MAX} printable characters, and {changed.title[:80]!a} has not"
            )
        if not changed.targets:
            raise BadRequest(f"the project {project.name} needs a target; add --target, as `farm targets` lists them")
        for option, names in (("target", changed.targets), ("builds-on", changed.builds_on)):
            if len(set(names)) != len(names):
                raise BadRequest(f"--{option} names {max(names, key=list(names).count)!a} twice; name it once")
        for target in change.targets or ():
            find_target(self._settings, target)
        for name in changed.root_packages:
            if not PACKAGE_NAME.fullmatch(name):
                raise BadRequest(f"--root-package {name[:80]!a} is no package's name")
        _check_number("target", changed.targets)
        _check_number("root-package", changed.root_packages)
        _check_builds_on(project.name, changed.builds_on, known)
        return changed


def _check_builds_on(name: str, wanted: Sequence[str], known: Collection[str]) -> None:
    if len(wanted) > BUILDS_ON_MAX:
        raise BadRequest(f"--builds-on names {len(wanted)} projects; use at most {BUILDS_ON_MAX}")
    for one in wanted:
        if one == name:
            raise BadRequest(f"--builds-on {one}: a project's roots see its own repositories anyway; leave it out")
        if one not in known:
            raise NotFound(f"--builds-on: there is no project {one[:80]!a}; there are {', '.join(sorted(known)[:20])}")


def _check_no_cycle(name: str, wanted: Sequence[str], others: Mapping[str, Project]) -> None:
    """Raises BadRequest, naming the way around."""
    ways: list[tuple[str, ...]] = [(one,) for one in wanted if one != name]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        if way[-1] == name:
            raise BadRequest(
                f"--builds-on {way[0]} makes a circle: {' builds on '.join((name, *way))}; "
                f"take {name} off the list of {way[-2]} first"
            )
        if way[-1] not in seen and way[-1] in others:
            seen.add(way[-1])
            ways += [(*way, one) for one in others[way[-1]].builds_on]


def _check_not_default(name: str, why: str) -> None:
    if name == DEFAULT_PROJECT:
        raise BadRequest(f"{name} is the default project: {why}; make another with `farm project new NAME --target T`")


def _check_number(option: str, names: Sequence[str]) -> None:
    if len(names) > _NAMES_MAX:
        raise BadRequest(f"{len(names)} times --{option} is too much; use at most {_NAMES_MAX}")


def _package_name(name: str) -> str:
    if not PACKAGE_NAME.fullmatch(name):
        raise BadRequest(f"{name[:80]!a} is no package's name: at most 128 letters, digits and ._+~-")
    return name


def _subject(project: str) -> str:
    """As it stands in the audit log."""
    return f"project {project}"

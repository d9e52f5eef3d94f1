"""The default project, and the place of a project's packages for a target."""

#: The project of builds that name none. Its repositories have the shortest addresses.
DEFAULT_PROJECT = "main"


def place_of(project: str, target: str) -> str:
    """The target's name; in a project other than the default one with the project before it. No target's name begins
    with `~`, so places of two projects are never the same.

    >>> place_of("main", "demo"), place_of("perl", "demo")
    ('demo', '~perl/demo')
    """
    return target if project == DEFAULT_PROJECT else f"~{project}/{target}"

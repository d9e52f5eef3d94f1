"""The source that `farm try` builds: a source package that is stored already, or the work tree as a commit.

Loads nothing of the steps, which load while git reads the work tree.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farm.model.local import TrialRequest
from farm.model.source import Source, work_tree
from workers.core.users import User, user
from workers.local.show import say
from workers.sources.worktree import snapshot


@contextmanager
def source_of(request: TrialRequest, stop: threading.Event) -> Iterator[tuple[Source, User]]:
    """The source, and the person to whom the results belong. Raises BadSource for a folder that cannot be read,
    LeaseLost when `stop` is set."""
    folder = Path(request.folder)
    if request.source is not None:
        found = folder.stat()
        yield request.source, user(found.st_uid, found.st_gid)
        return
    with snapshot(folder, without=Path(request.results).resolve(), stop=stop) as tree:
        changed = "with changes that are not committed" if tree.is_changed else "as committed"
        say(f"work tree {folder}, {changed}: commit {tree.commit[:12]}")
        subdir = "/".join(part for part in (tree.below, request.subdir) if part) or None
        who = tree.owner
        yield work_tree(tree.url, tree.commit, subdir=subdir, recipe=request.recipe, reader_uid=who.uid), who

"""Whether a spec takes its release or its changelog from the history. It loads no library, since few specs do."""

import re

from farm.model.outcome import Outcome
from workers.core.context import Ended, StepContext
from workers.formats.base import GatherRequest
from workers.sources.content import Content
from workers.sources.tree import Tree

_USES = re.compile(rb"%(?:\{\??)?auto(?:release|changelog)\b")
_OWN = re.compile(rb"^[ \t]*%(?:global|define)[ \t]+autorelease\b", re.MULTILINE)
_USES_MAX = 100
_SPEC_MAX_BYTES = 2**20


def with_history(
    spec_path: str, content: Content, tree: Tree, request: GatherRequest, context: StepContext
) -> Content | None:
    """The spec with its release and changelog from the history; None for a spec that states them itself.

    A spec that defines the macro itself, as a spec that rpmautospec has processed does, is left as it is. Raises as
    `autorelease.processed`.
    """
    if content.size_bytes > _SPEC_MAX_BYTES:
        return None
    text = content.read()
    uses = len(_USES.findall(text))
    if not uses or _OWN.search(text):
        return None
    if uses > _USES_MAX:
        raise Ended(Outcome.OVER_LIMIT, f"the spec names %autorelease more than {_USES_MAX} times; no spec does")
    if "\n" in spec_path:
        raise Ended(Outcome.FAILED, "%autorelease cannot be used in a folder whose name has a line end; rename it")
    from workers.formats.rpm import autorelease

    return autorelease.processed(spec_path, content, tree, request, context)

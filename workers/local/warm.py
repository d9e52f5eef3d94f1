"""Loads all that `farm try` uses, for the fork server that it leaves behind (farm/cli/forkserver.py)."""

import workers.formats.registry
import workers.local.tree
import workers.local.trial
import workers.sources.tree
import workers.steps.registry  # noqa: F401

"""The one exception of the tools for Pulp."""


class PulpError(Exception):
    """A tool for Pulp cannot go on; the message names the thing, the value and the next step."""

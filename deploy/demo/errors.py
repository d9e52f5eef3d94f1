"""The one exception of the demo tools."""


class DemoError(Exception):
    """A demo tool cannot go on; the message names the thing, the value and the next step."""

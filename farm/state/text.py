"""Text of workers, clients and packages in the form in which the farm records it."""

#: The longest reason that is recorded, in characters.
REASON_CHARS = 1000
#: The longest excerpt of a log that is recorded, in characters.
EXCERPT_CHARS = 32_768


def clean(text: str, limit: int = REASON_CHARS) -> str:
    """Text that every database takes: bounded, and without the characters that PostgreSQL refuses."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()[:limit]

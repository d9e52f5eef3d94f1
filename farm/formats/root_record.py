"""The record of a build root that an attempt stores: the packages in it, each with its digest.

A build host wrote it: it may have any content.
"""

import msgspec


class _Package(msgspec.Struct, frozen=True):
    identity: str = msgspec.field(name="nevra")
    digest: str


def decode_root(text: bytes) -> dict[str, str]:
    """The digest of each package by its identity; empty for a record that cannot be read."""
    try:
        return {one.identity: one.digest for one in msgspec.json.decode(text, type=list[_Package])}
    except msgspec.MsgspecError:
        return {}

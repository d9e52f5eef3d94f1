"""Values that a column holds as text: JSON, and the names of enums."""

from functools import lru_cache

import msgspec

from farm.model.arch import Arch
from farm.model.build import BuildOptions, Phase
from farm.model.outcome import Outcome
from farm.model.source import Source

decode_arches = msgspec.json.Decoder(tuple[Arch, ...]).decode
decode_names = msgspec.json.Decoder(tuple[str, ...]).decode
decode_phases = msgspec.json.Decoder(tuple[Phase, ...]).decode
_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=1024)
def decode_source(text: str) -> Source:
    return msgspec.json.decode(text, type=Source)


@lru_cache(maxsize=1024)
def decode_options(text: str) -> BuildOptions:
    return msgspec.json.decode(text, type=BuildOptions)


def to_text(value: object) -> str:
    """The JSON of a value, for a column."""
    return _encode(value).decode()


def decode_outcome(text: str | None) -> Outcome | None:
    return Outcome(text) if text is not None else None

"""The limits of a request for scripts: `parse_limits` reads them with units, as `--limit` does."""

from farm.service.limits import GivenLimits, check_limits, limit_text, limit_words, parse_limits

__all__ = ["GivenLimits", "check_limits", "limit_text", "limit_words", "parse_limits"]

"""Regular expressions of Go's syntax, by RE2: they take time linear in the text."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

PATTERN_BYTES_MAX: Final = 8 << 20


class PatternError(ValueError):
    """What is no pattern; the text says why."""


@lru_cache(maxsize=4096)
def pattern(text: str) -> Any:
    """The compiled pattern. Raises PatternError."""
    import re2  # noqa: PLC0415  a server without patterns never needs it

    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_BYTES_MAX
    try:
        return re2.compile(text, options)
    except (re2.error, UnicodeError) as error:
        said = error.args[0] if error.args else error
        raise PatternError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from None


def matches(text: str, value: str) -> bool:
    """Whether the pattern is found in the value. Raises PatternError."""
    return pattern(text).search(value) is not None

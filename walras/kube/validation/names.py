"""Formats of names, as in k8s.io/apimachinery/pkg/util/validation: each check returns its messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

NameCheck = Callable[[str], list[str]]

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_C_IDENTIFIER: Final = "[A-Za-z_][A-Za-z0-9_]*"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_DNS1035: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
_KEY: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_CONFIG_KEY: Final = "[-._a-zA-Z0-9]+"
_PERCENT: Final = "[0-9]+%"
_HEADER: Final = "[-A-Za-z0-9]+"
_LABEL_UNDERSCORE: Final = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_LABEL_WORDS: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
    "and end with an alphanumeric character"
)
_SUBDOMAIN_WORDS: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character"
)
_WILDCARD_WORDS: Final = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must "
    "consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
)
_DNS1035_WORDS: Final = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character"
)
_KEY_WORDS: Final = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character"
)
_VALUE_WORDS: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character"
)


def _matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).fullmatch(text) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


def _regex(words: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{words} (e.g. {shown}regex used for validation is '{pattern}')"


def _longest(most: int, unit: str = "characters") -> str:
    return f"must be no more than {most} {unit}"


def dns_label(text: str) -> list[str]:
    """RFC 1123 label: at most 63 of a-z, 0-9 and "-"."""
    found = [_longest(63)] if len(text) > 63 else []
    if not _matches(_LABEL, text):
        dotted = _matches(_SUBDOMAIN, text)
        found.append(
            "must not contain dots" if dotted else _regex(_LABEL_WORDS, _LABEL, "my-name", "123-abc")
        )
    return found


def dns_subdomain(text: str) -> list[str]:
    """RFC 1123 subdomain: labels with dots between, at most 253."""
    found = [_longest(253)] if len(text) > 253 else []
    return (
        found if _matches(_SUBDOMAIN, text) else [*found, _regex(_SUBDOMAIN_WORDS, _SUBDOMAIN, "example.com")]
    )


def dns_subdomain_with_underscore(text: str) -> list[str]:
    """A subdomain whose labels may have and begin with "_"."""
    found = [_longest(253)] if len(text) > 253 else []
    pattern = rf"{_LABEL_UNDERSCORE}(\.{_LABEL_UNDERSCORE})*"
    said = _SUBDOMAIN_WORDS.replace("characters, '-'", "characters, '_', '-'")
    return found if _matches(pattern, text) else [*found, _regex(said, pattern, "example.com")]


def wildcard_subdomain(text: str) -> list[str]:
    """A subdomain whose first label is "*"."""
    found = [_longest(253)] if len(text) > 253 else []
    pattern = rf"\*\.{_SUBDOMAIN}"
    return found if _matches(pattern, text) else [*found, _regex(_WILDCARD_WORDS, pattern, "*.example.com")]


def dns1035_label(text: str) -> list[str]:
    found = [_longest(63)] if len(text) > 63 else []
    return (
        found
        if _matches(_DNS1035, text)
        else [*found, _regex(_DNS1035_WORDS, _DNS1035, "my-name", "abc-123")]
    )


def qualified_name(text: str) -> list[str]:
    """A label's key: a name of at most 63 with an optional DNS subdomain and "/" before it."""
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        return [
            f"a valid label key {_regex(_KEY_WORDS, _KEY, 'MyName', 'my.name', '123-abc')}"
            " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    found: list[str] = []
    if slash:
        found += (
            [f"prefix part {m}" for m in dns_subdomain(prefix)]
            if prefix
            else ["prefix part must be non-empty"]
        )
    if not name:
        found.append("name part must be non-empty")
    elif len(name) > 63:
        found.append(f"name part {_longest(63, 'bytes')}")
    if not _matches(_KEY, name):
        found.append(f"name part {_regex(_KEY_WORDS, _KEY, 'MyName', 'my.name', '123-abc')}")
    return found


def label_value(text: str) -> list[str]:
    found = [_longest(63, "bytes")] if len(text) > 63 else []
    if not _matches(f"({_KEY})?", text):
        found.append(_regex(_VALUE_WORDS, f"({_KEY})?", "MyValue", "my_value", "12345"))
    return found


def c_identifier(text: str) -> list[str]:
    """A name of the language C."""
    found = ["must be no more than 32 bytes"] if len(text) > 32 else []
    if not _matches(_C_IDENTIFIER, text):
        words = "a valid C identifier must start with alphabetic character or '_', followed by a string of "
        words += "alphanumeric characters or '_'"
        found.append(_regex(words, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName"))
    return found


def config_key(text: str) -> list[str]:
    """A key of a ConfigMap or Secret, which becomes a file's name."""
    found = [_longest(253)] if len(text) > 253 else []
    if not _matches(_CONFIG_KEY, text):
        words = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        found.append(_regex(words, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    if text in (".", ".."):
        found.append(f"must not be '{text}'")
    elif text.startswith(".."):
        found.append("must not start with '..'")
    return found


def env_name(text: str) -> list[str]:
    """An environment variable's name: printable ASCII without "="."""
    if not text:
        return ["environment variable name must be non-empty"]
    if not text.isascii() or not text.isprintable() or "=" in text:
        return [
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
        ]
    return []


def port_number(port: int) -> list[str]:
    return [] if 1 <= port <= 65535 else ["must be between 1 and 65535, inclusive"]


def port_name(text: str) -> list[str]:
    found = [_longest(15)] if len(text) > 15 else []
    if not _matches("[-a-z0-9]+", text):
        found.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", text):
        found.append("must contain at least one letter (a-z)")
    if "--" in text:
        found.append("must not contain consecutive hyphens")
    if text.startswith("-") or text.endswith("-"):
        found.append("must not begin or end with a hyphen")
    return found


def port(value: int | str) -> list[str]:
    """A port by number or by name."""
    return port_name(value) if isinstance(value, str) else port_number(value)


def percent(text: str) -> list[str]:
    if _matches(_PERCENT, text):
        return []
    words = "a valid percent string must be a numeric string followed by an ending '%'"
    return [_regex(words, _PERCENT, "1%", "93%")]


def header_name(text: str) -> list[str]:
    if _matches(_HEADER, text):
        return []
    return [
        _regex("a valid HTTP header must consist of alphanumeric characters or '-'", _HEADER, "X-Header-Name")
    ]


def relative_path(text: str) -> Iterator[str]:
    """A path below a volume: not absolute, without ".."."""
    if text.startswith("/"):
        yield "must be a relative path"
    if ".." in text.split("/"):
        yield "must not contain '..'"


def generated(check: NameCheck, prefix: str) -> list[str]:
    """What `check` says of a generateName, whose trailing dash the suffix will follow."""
    return check(prefix[:-2] + "a" if len(prefix) > 1 and prefix.endswith("-") else prefix)

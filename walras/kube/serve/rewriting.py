"""Pages behind a proxy: addresses that begin with / are made to lead below it, as kube-apiserver does. Pure.

As k8s.io/apimachinery/pkg/util/proxy, but that all else of a page stays as it is, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# Attributes of elements that are addresses.
_ADDRESSES: Final = {
    b"a": (b"href",), b"applet": (b"codebase",), b"area": (b"href",), b"audio": (b"src",),
    b"base": (b"href",),
    b"blockquote": (b"cite",), b"body": (b"background",), b"button": (b"formaction",), b"command": (b"icon",),
    b"del": (b"cite",), b"embed": (b"src",), b"form": (b"action",), b"frame": (b"longdesc", b"src"),
    b"head": (b"profile",), b"html": (b"manifest",), b"iframe": (b"longdesc", b"src"),
    b"img": (b"longdesc", b"src", b"usemap"), b"input": (b"src", b"usemap", b"formaction"),
    b"ins": (b"cite",),
    b"link": (b"href",), b"object": (b"classid", b"codebase", b"data", b"usemap"), b"q": (b"cite",),
    b"script": (b"src",), b"source": (b"src",), b"video": (b"poster", b"src"),
}  # fmt: skip
# Elements whose content is text up to their end.
_TEXT: Final = (b"script", b"style", b"textarea", b"title", b"xmp", b"iframe", b"noembed", b"noframes")
_NAME: Final = re.compile(rb"[a-zA-Z][^\s/>]*")
_SPACE: Final = re.compile(rb"[\s/]*")
_ATTRIBUTE: Final = re.compile(rb"[^\s/>=]+")
_EQUALS: Final = re.compile(rb"\s*=\s*")
_BARE: Final = re.compile(rb"[^\s>]*")


def rewritten(page: bytes, base: bytes) -> bytes:
    """The page with `base` before every address that begins with one slash and not with `base` already.

    Takes time proportional to the page's length, whatever it holds.
    """
    parts: list[bytes] = []
    done = 0
    for start, end in _addresses(page):
        value = page[start:end]
        if value.startswith(b"/") and not value.startswith((b"//", base)):
            parts += [page[done:start], base]
            done = start
    return b"".join([*parts, page[done:]])


def _addresses(page: bytes) -> Iterator[tuple[int, int]]:
    """Where addresses begin and end."""
    at = 0
    while (at := page.find(b"<", at)) >= 0:
        if page.startswith(b"<!--", at):
            at = page.find(b"-->", at + 4)
            if at < 0:
                return
            continue
        found = _NAME.match(page, at + 1)
        if found is None:
            at += 1
            continue
        tag = found[0].lower()
        wanted, at = _ADDRESSES.get(tag, ()), found.end()
        while (at := _end(_SPACE, page, at)) < len(page) and page[at : at + 1] != b">":
            name_end = _end(_ATTRIBUTE, page, at)
            name, at = page[at:name_end].lower(), max(name_end, at + 1)
            equals = _EQUALS.match(page, name_end)
            if equals is None:
                continue
            start, end, at = _value(page, equals.end())
            if end < 0:
                return
            if name in wanted:
                yield start, end
        if tag in _TEXT:
            closing = re.compile(rb"</" + tag, re.IGNORECASE).search(page, at)
            if closing is None:
                return
            at = closing.end()


def _end(pattern: re.Pattern[bytes], page: bytes, at: int) -> int:
    found = pattern.match(page, at)
    return found.end() if found else at


def _value(page: bytes, at: int) -> tuple[int, int, int]:
    """Where an attribute's value begins and ends, -1 for never, and where what follows it begins."""
    quote = page[at : at + 1]
    if quote in (b'"', b"'"):
        end = page.find(quote, at + 1)
        return at + 1, end, end + 1
    end = _end(_BARE, page, at)
    return at, end, end

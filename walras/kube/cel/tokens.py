"""The words of an expression (cel-spec, lexical analysis), and how errors show where they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n\f]+|//[^\n]*)
    |(?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
    |(?P<uint>(?:0[xX][0-9a-fA-F]+|\d+)[uU])
    |(?P<int>0[xX][0-9a-fA-F]+|\d+)
    |(?P<string>(?:[bB][rR]?|[rR][bB]?)?(?:\"\"\"(?:.|\n)*?\"\"\"|'''(?:.|\n)*?'''
        |"(?:\\.|[^"\\\n\r])*"|'(?:\\.|[^'\\\n\r])*'))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<quoted>`[A-Za-z0-9_.\-/ ]+`)
    |(?P<op>\[\?|\.\?|==|!=|<=|>=|&&|\|\||[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE,
)  # fmt: skip
_RAW: Final = re.compile(r"""(?:[rR][bB]?|[bB][rR])(?:"(?!"")[^"\n\r]*"|'(?!'')[^'\n\r]*')""")
_ESCAPES: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", "'": "'",
    '"': '"', "`": "`", "?": "?",
}  # fmt: skip
_ESCAPE: Final = re.compile(
    r"\\(?:([xX][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2})|(.))", re.S
)


class SourceError(Exception):
    """An expression that is none; the text is cel-go's display of where and why."""


def located(source: str, at: int, message: str) -> str:
    """`ERROR: <input>:1:5: message` with the line and a mark below the place."""
    before = source[:at]
    line = before.count("\n") + 1
    column = at - (before.rfind("\n") + 1)
    text = source.split("\n")[line - 1].replace("\t", " ")
    return f"ERROR: <input>:{line}:{column + 1}: {message}\n | {text}\n | {'.' * column}^"


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    at: int


def tokens_of(source: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            # A text without its end is all of what is left of the line.
            end = len(source) if source[at] in "'\"" else at + 1
            said = f"Syntax error: token recognition error at: '{source[at:end].splitlines()[0]}'"
            raise SourceError(located(source, at, said))
        kind, text = str(match.lastgroup), match.group()
        raw = _RAW.match(source, at) if kind == "string" else None
        if raw is not None:
            # Backslashes of raw strings hide no quote.
            text = raw.group()
        if kind != "space":
            found.append(Token(kind, text, at))
        at += len(text)
    found.append(Token("end", "<EOF>", len(source)))
    return found


def text_of(token: Token, source: str) -> str | bytes:
    prefix = re.match(r"[rRbB]*", token.text)
    assert prefix is not None
    flags, body = prefix.group().lower(), token.text[prefix.end() :]
    quotes = 3 if body[:3] in ('"""', "'''") else 1
    body = body[quotes:-quotes]
    binary = "b" in flags
    if "r" in flags:
        return body.encode() if binary else body
    if not binary:

        def plain(match: re.Match[str]) -> str:
            code, single = match.groups()
            if single is not None:
                if single not in _ESCAPES:
                    raise SourceError(located(source, token.at, "Syntax error: invalid escape sequence"))
                return _ESCAPES[single]
            number = int(code, 8) if code[0].isdigit() else int(code[1:], 16)
            if number > 0x10FFFF or 0xD800 <= number < 0xE000:
                raise SourceError(located(source, token.at, "Syntax error: invalid unicode code point"))
            return chr(number)

        return _ESCAPE.sub(plain, body)
    out = bytearray()
    end = 0
    for match in _ESCAPE.finditer(body):
        out += body[end : match.start()].encode()
        code, single = match.groups()
        if single is not None:
            out += _ESCAPES.get(single, single).encode()
        elif code[0] in "uU":
            raise SourceError(located(source, token.at, "Syntax error: unicode escapes are not for bytes"))
        else:
            out.append(int(code, 8) if code[0].isdigit() else int(code[1:], 16))
        end = match.end()
    return bytes(out + body[end:].encode())

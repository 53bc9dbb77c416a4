"""CEL is held against Google's own implementation in C++: what is generated means the same to both."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from walras.kube import cel
from walras.kube.cel.types import list_of, map_of, read
from walras.kube.cel.values import CelError, Duration, Timestamp, UInt

google = pytest.importorskip("cel_expr_python.cel", reason="its wheels are for Linux on x86-64 alone")

KINDS: Final = (
    "int", "uint", "double", "bool", "string", "bytes", "ints", "strings", "counts", "time", "span",
)  # fmt: skip
ORDERED: Final = ("int", "uint", "double", "string", "bytes", "bool", "time", "span")
NUMBERS: Final = ("int", "uint", "double")
COMPARED: Final = ("<", "<=", ">", ">=", "==", "!=")
# $name is an expression of that kind. Literals that Kubernetes refuses at once are added to nothing.
LEAVES: Final[dict[str, tuple[str, ...]]] = {
    "int": ("i", "0", "1", "(-2)", "3", "9223372036854775807", "(-9223372036854775808)"),
    "uint": ("u", "0u", "2u", "18446744073709551615u"),
    "double": ("d", "0.0", "1.5", "(-2.5)", "1e300"),
    "bool": ("b", "true", "false"),
    "string": ("s", "''", "'a'", "'ab'", "'äb𝄞'", "'-1'", "'2.5'", "'1h'", "'2024-02-29T12:30:45.5Z'"),
    "bytes": ("b''", "b'a'", "b'ab\\xff'", "b'ä'"),
    "ints": ("li", "[]", "[1]", "[3, 1, 2]", "[1, 1]"),
    "strings": ("ls", "['a']", "['a', 'b', 'a']"),
    "counts": ("m", "{'a': 1}", "{'a': 1, 'b': 2}"),
    "time": (
        "timestamp('2024-02-29T12:30:45.123Z')", "timestamp('0001-01-01T00:00:00Z')",
        "timestamp('9999-12-31T23:59:59Z')", "timestamp('1969-12-31T23:59:59-01:30')",
    ),
    "span": ("duration('1h30m')", "duration('-1.5s')", "duration('0s')", "duration('24h')"),
}  # fmt: skip
_TIMES: Final = (
    "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getHours",
    "getMinutes", "getSeconds", "getMilliseconds",
)  # fmt: skip
_ZONES: Final = ("", "'+05:30'", "'-08:00'", "'UTC'")
_MATCHED: Final = ("a+", "^$", "^.b?", "[ab]{2}", "(")
_SOME: Final = ("all", "exists", "exists_one")
FORMS: Final[dict[str, tuple[str, ...]]] = {
    "int": (
        *(f"($int {sign} $int)" for sign in "+-*/%"),
        "(-$int)",
        *(f"size(${kind})" for kind in ("string", "bytes", "ints", "strings", "counts")),
        *(f"int(${kind})" for kind in (*NUMBERS, "string", "time")),
        "$ints[$int]",
        "$counts[$string]",
        *(f"$time.{part}({zone})" for part in _TIMES for zone in _ZONES),
        *(f"$span.{part}()" for part in ("getHours", "getMinutes", "getSeconds")),
    ),
    "uint": (
        *(f"($uint {sign} $uint)" for sign in "+-*/%"),
        *(f"uint(${kind})" for kind in (*NUMBERS, "string")),
    ),
    "double": (
        *(f"($double {sign} $double)" for sign in "+-*/"),
        "(-$double)",
        *(f"double(${kind})" for kind in (*NUMBERS, "string")),
    ),
    "bool": (
        "($bool && $bool)",
        "($bool || $bool)",
        "(!$bool)",
        *(f"(${kind} {sign} ${kind})" for kind in ORDERED for sign in COMPARED),
        *(f"(${kind} {sign} ${kind})" for kind in ("ints", "strings", "counts") for sign in ("==", "!=")),
        *(f"(${a} {sign} dyn(${b}))" for a in NUMBERS for b in NUMBERS for sign in COMPARED),
        *(f"(dyn(${a}) == dyn(${b}))" for a in ("int", "string") for b in ("bool", "ints", "double")),
        "($int in $ints)",
        "($string in $strings)",
        "($string in $counts)",
        *(f"$string.{name}($string)" for name in ("startsWith", "endsWith", "contains")),
        *(f"$string.matches('' + '{pattern}')" for pattern in _MATCHED),
        *(f"$ints.{name}(x, x > $int)" for name in _SOME),
        *(f"$counts.{name}(x, $counts[x] > 1)" for name in _SOME),
        *(f"$ints.{name}(x, 6 / x > 1)" for name in _SOME),
        "has($counts.a)",
        "bool($string)",
    ),
    "string": (
        "($string + $string)",
        *(f"string(${kind})" for kind in ("int", "uint", "bool", "string", "bytes")),
        "$strings[$int]",
    ),
    "bytes": ("($bytes + $bytes)", "bytes($string)"),
    "ints": (
        "($ints + $ints)",
        "$ints.map(x, x * $int)",
        "$ints.map(x, x > $int, x - 1)",
        "$ints.filter(x, x != $int)",
        "$strings.map(x, size(x))",
        "[$int, $int]",
    ),
    "strings": (
        "($strings + $strings)",
        "$strings.filter(x, x.startsWith($string))",
        "$strings.map(x, x + $string)",
        "[$string]",
    ),
    "counts": ("{$string: $int}", "{'only': $int, $string: 1}"),
    "time": ("($time + $span)", "($time - $span)", "timestamp('' + $string)"),
    "span": ("($span + $span)", "($span - $span)", "($time - $time)", "duration('' + $string)"),
}

_G = google.Type
VARIABLES: Final[dict[str, tuple[Any, Any]]] = {
    "i": (read("int"), _G.INT),
    "u": (read("uint"), _G.UINT),
    "d": (read("double"), _G.DOUBLE),
    "b": (read("bool"), _G.BOOL),
    "s": (read("string"), _G.STRING),
    "li": (list_of(read("int")), _G.List(_G.INT)),
    "ls": (list_of(read("string")), _G.List(_G.STRING)),
    "m": (map_of(read("string"), read("int")), _G.Map(_G.STRING, _G.INT)),
}
OURS: Final = {name: ours for name, (ours, _) in VARIABLES.items()}
THEIRS: Final = google.NewEnv(variables={name: theirs for name, (_, theirs) in VARIABLES.items()})
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

numbers = st.integers(-3, 3) | st.sampled_from([2**63 - 1, -(2**63), 2**62])
texts = st.text("abä𝄞 -0", max_size=4)
values = st.fixed_dictionaries(
    {
        "i": numbers,
        "u": st.integers(0, 3) | st.sampled_from([2**64 - 1, 2**63]),
        "d": st.sampled_from([0.0, 1.0, -1.5, 2.5, 1e300, -1e300, 0.1, 2.0**53]),
        "b": st.booleans(),
        "s": texts,
        "li": st.lists(numbers, max_size=3),
        "ls": st.lists(texts, max_size=3),
        "m": st.dictionaries(st.text("ab", max_size=2), numbers, max_size=3),
    }
)


@st.composite
def expressions(draw: st.DrawFn, kind: str = "", depth: int = 4) -> str:
    kind = kind or draw(st.sampled_from(KINDS))
    if not depth or not draw(st.integers(0, 3)):
        return draw(st.sampled_from(LEAVES[kind]))
    form = draw(st.sampled_from(FORMS[kind])) if draw(st.integers(0, 7)) else f"($bool ? ${kind} : ${kind})"
    return re.sub(r"\$(\w+)", lambda part: draw(expressions(part[1], depth - 1)), form)


def told(value: Any) -> Any:
    """A value of ours with its kind."""
    match value:
        case bool() | str() | bytes():
            return (type(value).__name__, value)
        case UInt():
            return ("uint", int(value))
        case int():
            return ("int", value)
        case float():
            return ("double", repr(value))
        case Timestamp():
            return ("timestamp", value.ns // 1000)
        case Duration():
            return ("duration", value.ns // 1000)
        case list():
            return ("list", [told(each) for each in value])
    return ("map", sorted((told(key), told(each)) for key, each in value.items()))


def told_by_google(found: Any) -> Any:
    """The same of one of theirs; their times end at microseconds."""
    kind, value = str(found.type()), found.plain_value()
    match kind.partition("<")[0]:
        case "ERROR":
            return "error"
        case "UINT":
            return ("uint", value)
        case "BYTES":
            return ("bytes", bytes(value))
        case "TIMESTAMP":
            return ("timestamp", (value - EPOCH) // timedelta(microseconds=1))
        case "DURATION":
            return ("duration", value // timedelta(microseconds=1))
    return told(value)


def evaluated(source: str, given: dict[str, Any]) -> Any:
    program = cel.compile_typed(source, OURS).program
    try:
        return told(program.run({**given, "u": UInt(given["u"])})[0])
    except CelError as error:
        # Of which Google's two implementations think differently.
        assume("NaN" not in str(error))
        return "error"


@settings(max_examples=1500, deadline=None)
@given(expressions(), values)
def test_an_expression_means_what_it_means_to_google(source: str, given: dict[str, Any]) -> None:
    assert evaluated(source, given) == told_by_google(THEIRS.compile(source).eval(data=given))

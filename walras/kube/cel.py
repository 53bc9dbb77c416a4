"""CEL rules of custom resources (x-kubernetes-validations, KEP-2876), by Google's cel-cpp.

Programs are compiled once for each text and shared by all clusters. cel-cpp bounds a rule's iterations but
neither its time nor its memory, so a rule whose words could make much of its value is not begun. Patterns run
here too, because RE2 takes time linear in its input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, Final

from walras.kube.schema import Schema

RULE_MAX_CHARACTERS: Final = 16_384
RULES_MAX: Final = 256
MESSAGE_MAX_CHARACTERS: Final = 5_120
# Bytes that one evaluation may look at or make, at the worst.
COST_MAX: Final = 1 << 27
_LOOPS: Final = re.compile(r"\b(?:all|exists|exists_one|existsOne|map|filter|bind|optMap|optFlatMap)\b")
_DOUBLES: Final = re.compile(r"\+|\b(?:quote|encode)\b")
_JOINS: Final = re.compile(r"\bjoin\b")
_MULTIPLIES: Final = re.compile(r"\b(?:replace|format)\b")
_OLD_SELF: Final = re.compile(r"\boldSelf\b")
_KEYWORDS: Final = re.compile(
    "true|false|null|in|as|break|const|continue|else|for|function|if|import|let|loop|package|namespace|return"
)
_ESCAPES: Final = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))


class RuleError(Exception):
    """A rule that does not compile, or failed while it ran; the text says why."""


@cache
def _environment() -> Any:
    # The libraries cost more to load than a server without custom resources ever needs.
    from cel_expr_python import cel  # noqa: PLC0415
    from cel_expr_python.ext import (  # noqa: PLC0415
        ext_bindings,
        ext_encoders,
        ext_math,
        ext_optional,
        ext_strings,
    )

    kinds = cel.Type
    dynamic, sequence = kinds.DYN, kinds.List(kinds.DYN)

    def method(name: str, result: Any, parameters: list[Any], run: Any) -> Any:
        overload = cel.Overload(
            id=f"k8s_{name}_{len(parameters)}",
            return_type=result,
            parameters=parameters,
            is_member=True,
            impl=run,
        )
        return cel.FunctionDecl(name, [overload])

    extensions = [
        ext_optional.ExtOptional(),
        ext_strings.ExtStrings(),
        ext_math.ExtMath(),
        ext_bindings.ExtBindings(),
        ext_encoders.ExtEncoders(),
    ]
    functions = [
        method("isSorted", kinds.BOOL, [sequence], _is_sorted),
        method("sum", dynamic, [sequence], sum),
        method("min", dynamic, [sequence], min),
        method("max", dynamic, [sequence], max),
    ]
    variables = {"self": dynamic, "oldSelf": dynamic}
    return cel.NewEnv(variables=variables, extensions=extensions, functions=functions)


def _is_sorted(items: list[Any]) -> bool:
    return all(first <= second for first, second in pairwise(items))


@lru_cache(maxsize=4096)
def compiled(expression: str) -> Any:
    """The program of an expression over `self` and `oldSelf`. Raises RuleError."""
    if len(expression) > RULE_MAX_CHARACTERS:
        raise RuleError(f"is longer than {RULE_MAX_CHARACTERS} characters")
    try:
        return _environment().compile(expression)
    except (RuntimeError, ValueError, TypeError) as error:
        raise RuleError(_first_line(error)) from None


def result_type(expression: str) -> str:
    """The type that an expression yields: "BOOL", "STRING", "DYN", ... Raises RuleError."""
    return str(compiled(expression).return_type().name())


@lru_cache(maxsize=4096)
def _words(expression: str) -> tuple[int, int, int, int]:
    """How often it names what repeats, doubles, joins and multiplies values, in whatever context."""
    return (
        len(_LOOPS.findall(expression)),
        len(_DOUBLES.findall(expression)),
        len(_JOINS.findall(expression)),
        len(_MULTIPLIES.findall(expression)),
    )


def check_cost(expression: str, *values: Any) -> None:
    """Raises RuleError where evaluating it over the values could take more than COST_MAX.

    A bound from above: a loop goes over every part of the values and reads all of them each time, and so does
    "join"; "+" doubles what it is given; "replace" and "format" put everything in the place of every byte.
    """
    loops, doubles, joins, multiplies = _words(expression)
    if not loops and not joins and not multiplies:
        return
    parts = size = len(expression)
    for value in values:
        more_parts, more_size = _extent(value)
        parts, size = parts + more_parts, size + more_size
    cost = size * parts ** max(min(loops, 1), joins) * size**multiplies
    if cost << min(doubles, 32) > COST_MAX:
        raise RuleError(
            "may cost more than the budget of one rule; bound its value with maxItems and maxLength"
        )


def _extent(value: Any) -> tuple[int, int]:
    """The number of parts of a value, and their bytes together."""
    parts = size = 0
    rest = [value]
    while rest:
        item = rest.pop()
        parts += 1
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, dict):
            size += sum(map(len, item))
            rest += item.values()
        elif isinstance(item, list):
            rest += item
        else:
            size += 8
    return parts, size


def evaluate(expression: str, self_value: Any, old_value: Any = None) -> Any:
    """What the expression yields, as plain Python. Raises RuleError when it fails, or may cost too much."""
    program = compiled(expression)
    check_cost(expression, self_value, old_value)
    try:
        value = program.eval(data={"self": self_value, "oldSelf": old_value})
        if value.type().name() == "ERROR":
            raise RuleError(_first_line(value.value()))
        return value.plain_value()
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise RuleError(_first_line(error)) from None


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [""])[0].removeprefix("INVALID_ARGUMENT: ")


def uses_old_self(expression: str) -> bool:
    """Whether it is a transition rule, which only an update can break."""
    return _OLD_SELF.search(expression) is not None


@lru_cache(maxsize=4096)
def _pattern(pattern: str) -> str:
    return f"self.matches({json.dumps(pattern, ensure_ascii=False)})"


def matches(pattern: str, text: str) -> bool:
    """Whether the RE2 pattern is found in the text. Raises RuleError for what is no pattern."""
    return evaluate(_pattern(pattern), text) is True


def escaped(name: str) -> str:
    """A field's name as rules write it."""
    if _KEYWORDS.fullmatch(name):
        return f"__{name}__"
    for plain, escape in _ESCAPES:
        name = name.replace(plain, escape)
    return name


def value_of(schema: Schema, value: Any, root: bool = False) -> Any:
    """A value as rules see it: fields by their escaped names.

    Times and durations stay strings, which cel-cpp's Python binding cannot pass as such: rules write
    `timestamp(self.start)`, which upstream takes too.
    """
    if isinstance(value, list):
        items = schema.items
        return value if items is None else [value_of(items, item) for item in value]
    if not isinstance(value, dict) or schema.int_or_string:
        return value
    result: dict[str, Any] = {}
    for name, item in value.items():
        declared = name in schema.properties
        node = schema.child(name)
        if root and name == "metadata":
            result[name] = {key: item[key] for key in ("name", "generateName") if key in item}
        elif node is not None:
            result[escaped(name) if declared else name] = value_of(node, item)
        elif root and name in ("apiVersion", "kind"):
            result[name] = item
    return result


def rules_of(schema: Schema) -> tuple[Mapping[str, Any], ...]:
    return tuple(schema.raw.get("x-kubernetes-validations") or ())

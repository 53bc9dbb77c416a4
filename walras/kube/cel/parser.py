"""CEL's grammar (cel-spec, langdef): text in, `ast` out. Syntax errors are worded as cel-go words them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from walras.kube.cel.ast import (
    Call,
    Ident,
    Index,
    ListNode,
    Literal,
    Macro,
    MapNode,
    Node,
    Select,
    Struct,
)
from walras.kube.cel.tokens import SourceError, Token, located, text_of, tokens_of
from walras.kube.cel.values import INT_MAX, UINT_MAX, UInt

# As cel-go: how deep an expression may nest, and how long it may be.
DEPTH_MAX: Final = 250
CHARACTERS_MAX: Final = 100_000

_PRIMARY: Final = (
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, "
    "BYTES, IDENTIFIER}"
)
_RESERVED: Final = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_RELATIONS: Final = ("==", "!=", "<", "<=", ">", ">=", "in")


class _Parser:
    def __init__(self, source: str, *, binds: bool) -> None:
        self.source = source
        self.binds = binds
        self.tokens = tokens_of(source)
        self.place = 0
        self.depth = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.place]

    def fail(self, token: Token, message: str) -> SourceError:
        return SourceError(located(self.source, token.at, f"Syntax error: {message}"))

    def take(self, text: str) -> Token:
        token = self.token
        if token.kind not in ("op", "name") or token.text != text:
            raise self.fail(token, f"mismatched input '{token.text}' expecting '{text}'")
        self.place += 1
        return token

    def given(self, *texts: str) -> Token | None:
        token = self.token
        if token.kind in ("op", "name") and token.text in texts:
            self.place += 1
            return token
        return None

    def whole(self) -> Node:
        node = self.expression()
        if self.token.kind != "end":
            last = self.tokens[self.place + 1].kind == "end"
            how = "extraneous" if last else "mismatched"
            raise self.fail(self.token, f"{how} input '{self.token.text}' expecting <EOF>")
        return node

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self.fail(self.token, f"expression recursion limit exceeded: {DEPTH_MAX}")
        condition = self.joined("||", self.conjunction)
        mark = self.given("?")
        if mark is not None:
            chosen = self.joined("||", self.conjunction)
            self.take(":")
            condition = Call(at=mark.at, name="_?_:_", args=[condition, chosen, self.expression()])
        self.depth -= 1
        return condition

    def joined(self, operator: str, below: Callable[[], Node]) -> Node:
        """Balanced, as cel-go does it, so that long chains do not nest deeply."""
        terms, marks = [below()], []
        while (mark := self.given(operator)) is not None:
            marks.append(mark)
            terms.append(below())

        def balance(low: int, high: int) -> Node:
            if low == high:
                return terms[low]
            middle = (low + high + 1) // 2
            left, right = balance(low, middle - 1), balance(middle, high)
            return Call(at=marks[middle - 1].at, name=f"_{operator}_", args=[left, right])

        return balance(0, len(terms) - 1)

    def conjunction(self) -> Node:
        return self.joined("&&", self.relation)

    def relation(self) -> Node:
        left = self.sum()
        while (mark := self.given(*_RELATIONS)) is not None:
            name = "@in" if mark.text == "in" else f"_{mark.text}_"
            left = Call(at=mark.at, name=name, args=[left, self.sum()])
        return left

    def sum(self) -> Node:
        left = self.product()
        while (mark := self.given("+", "-")) is not None:
            left = Call(at=mark.at, name=f"_{mark.text}_", args=[left, self.product()])
        return left

    def product(self) -> Node:
        left = self.unary()
        while (mark := self.given("*", "/", "%")) is not None:
            left = Call(at=mark.at, name=f"_{mark.text}_", args=[left, self.unary()])
        return left

    def unary(self) -> Node:
        marks: list[Token] = []
        while (mark := self.given("!", "-")) is not None:
            if marks and marks[0].text != mark.text:
                raise self.fail(mark, f"extraneous input '{mark.text}' expecting {_PRIMARY}")
            marks.append(mark)
        if marks and marks[0].text == "-" and self.token.kind in ("int", "float"):
            node = self.postfix(negative=True)
            marks.pop()
        else:
            node = self.postfix()
        if len(marks) % 2:
            node = Call(at=marks[0].at, name="!_" if marks[0].text == "!" else "-_", args=[node])
        return node

    def postfix(self, *, negative: bool = False) -> Node:
        node, steps = self.primary(negative=negative), 0
        while (mark := self.given(".", ".?", "[", "[?")) is not None:
            steps += 1
            if steps > DEPTH_MAX:
                raise self.fail(mark, f"expression recursion limit exceeded: {DEPTH_MAX}")
            if mark.text.startswith("["):
                index = self.expression()
                self.take("]")
                node = Index(at=mark.at, operand=node, index=index, optional=mark.text == "[?")
                continue
            name = self.field()
            opened = self.given("(") if mark.text == "." else None
            if opened is None:
                node = Select(at=mark.at, operand=node, field=name, optional=mark.text == ".?")
            else:
                node = self.called(opened, name, node)
        return node

    def field(self) -> str:
        token = self.token
        if token.kind == "quoted":
            self.place += 1
            return token.text[1:-1]
        if token.kind != "name" or token.text in ("in", "true", "false", "null"):
            raise self.fail(token, f"no viable alternative at input '.{token.text}'")
        self.place += 1
        return token.text

    def arguments(self, end: str) -> list[Node]:
        found: list[Node] = []
        if self.given(end):
            return found
        while True:
            found.append(self.expression())
            if not self.given(","):
                self.take(end)
                return found

    def called(self, opened: Token, name: str, target: Node | None) -> Node:
        args = self.arguments(")")
        return _expanded(self, opened, name, target, args) or Call(
            at=opened.at, name=name, args=args, target=target
        )

    def primary(self, *, negative: bool = False) -> Node:
        token = self.token
        self.place += 1
        match token.kind:
            case "int" | "uint" | "float":
                return self.number(token, negative)
            case "string":
                return Literal(at=token.at, value=text_of(token, self.source))
            case "name" if token.text in ("true", "false", "null"):
                return Literal(at=token.at, value={"true": True, "false": False, "null": None}[token.text])
            case "name" if token.text != "in":
                return self.name(token, token.text)
        match token.text:
            case "(":
                node = self.expression()
                self.take(")")
                return node
            case "[" | "[?":
                return self.list(token)
            case "{":
                return self.map(token)
            case "." if self.token.kind == "name":
                following = self.token
                self.place += 1
                return self.name(following, "." + following.text)
        self.place -= 1
        raise self.fail(token, f"mismatched input '{token.text}' expecting {_PRIMARY}")

    def number(self, token: Token, negative: bool) -> Node:
        text = token.text
        value: Any
        if token.kind == "float":
            value = float(text)
            return Literal(at=token.at, value=-value if negative else value)
        digits = text.rstrip("uU") if token.kind == "uint" else text
        value = int(digits, 16 if digits[:2].lower() == "0x" else 10)
        if token.kind == "uint":
            if value > UINT_MAX:
                raise SourceError(located(self.source, token.at, "Syntax error: invalid uint literal"))
            return Literal(at=token.at, value=UInt(value))
        value = -value if negative else value
        if not -INT_MAX - 1 <= value <= INT_MAX:
            raise SourceError(located(self.source, token.at, "Syntax error: invalid int literal"))
        return Literal(at=token.at, value=value)

    def name(self, token: Token, name: str) -> Node:
        if token.text in _RESERVED:
            raise SourceError(
                located(self.source, token.at, f"Syntax error: reserved identifier: {token.text}")
            )
        opened = self.given("(")
        if opened is not None:
            return self.called(opened, name, None)
        struct = self._struct(name)
        return struct or Ident(at=token.at, name=name)

    def _struct(self, name: str) -> Node | None:
        """`A.B{...}`, told from a selection by the brace behind its names."""
        place, names = self.place, [name]
        while self.tokens[place].text == "." and self.tokens[place + 1].kind == "name":
            names.append(self.tokens[place + 1].text)
            place += 2
        if self.tokens[place].text != "{":
            return None
        opened = self.tokens[place]
        self.place = place + 1
        fields: list[str] = []
        values: list[Node] = []
        optional: set[int] = set()
        while not self.given("}"):
            if self.given("?"):
                optional.add(len(fields))
            fields.append(self.field())
            self.take(":")
            values.append(self.expression())
            if not self.given(","):
                self.take("}")
                break
        return Struct(
            at=opened.at, name=".".join(names), fields=fields, values=values, optional=frozenset(optional)
        )

    def list(self, opened: Token) -> Node:
        items: list[Node] = []
        optional: set[int] = set()
        first = opened.text == "[?"
        while first or not self.given("]"):
            if first or self.given("?"):
                first = False
                optional.add(len(items))
            items.append(self.expression())
            if not self.given(","):
                self.take("]")
                break
        return ListNode(at=opened.at, items=items, optional=frozenset(optional))

    def map(self, opened: Token) -> Node:
        keys: list[Node] = []
        values: list[Node] = []
        optional: set[int] = set()
        while not self.given("}"):
            if self.given("?"):
                optional.add(len(keys))
            keys.append(self.expression())
            self.take(":")
            values.append(self.expression())
            if not self.given(","):
                self.take("}")
                break
        return MapNode(at=opened.at, keys=keys, values=values, optional=frozenset(optional))


# Macros by the number of their arguments with one variable; with two they have one more.
_ONE: Final = {"all": 2, "exists": 2, "exists_one": 2, "existsOne": 2, "filter": 2, "map": (2, 3)}
_TWO: Final = {
    "all": 3, "exists": 3, "existsOne": 3, "exists_one": 3, "transformList": (3, 4), "transformMap": (3, 4),
    "transformMapEntry": (3, 4),
}  # fmt: skip


def _takes(counts: Any, number: int) -> bool:
    return number in (counts if isinstance(counts, tuple) else (counts,))


def _expanded(
    parser: _Parser, opened: Token, name: str, target: Node | None, args: list[Node]
) -> Node | None:
    """The macro that a call is, or None."""

    def variable(node: Node) -> str:
        if not isinstance(node, Ident) or node.name.startswith("."):
            raise SourceError(located(parser.source, node.at, "argument must be a simple name"))
        return node.name

    at, number = opened.at, len(args)
    if target is None:
        if name != "has" or number != 1:
            return None
        (tested,) = args
        if not isinstance(tested, Select) or tested.optional:
            raise SourceError(located(parser.source, at, "invalid argument to has() macro"))
        return Select(at=at, operand=tested.operand, field=tested.field, test=True)
    if parser.binds and name == "bind" and number == 3 and isinstance(target, Ident) and target.name == "cel":
        return Macro(at=at, name=name, over=args[1], variables=[variable(args[0])], args=[args[2]])
    if name in ("optMap", "optFlatMap") and number == 2:
        return Macro(at=at, name=name, over=target, variables=[variable(args[0])], args=[args[1]])
    # `map` with three arguments is the one with a filter.
    if name in _ONE and _takes(_ONE[name], number):
        said = "exists_one" if name == "existsOne" else name
        return Macro(at=at, name=said, over=target, variables=[variable(args[0])], args=args[1:])
    if name in _TWO and _takes(_TWO[name], number):
        said = "exists_one" if name == "existsOne" else name
        variables = [variable(args[0]), variable(args[1])]
        if variables[0] == variables[1]:
            raise SourceError(located(parser.source, args[1].at, "duplicate variable name"))
        return Macro(at=at, name=said, over=target, variables=variables, args=args[2:])
    return None


def parse(source: str, *, binds: bool = False) -> Node:
    """The expression, in which `cel.bind` may name values where it `binds`. Raises SourceError."""
    if len(source) > CHARACTERS_MAX:
        size, most = len(source), CHARACTERS_MAX
        raise SourceError(
            f"ERROR: <input>:-1:0: expression code point size exceeds limit: size: {size}, limit {most}"
        )
    try:
        return _Parser(source, binds=binds).whole()
    except RecursionError:
        said = f"expression recursion limit exceeded: {DEPTH_MAX}"
        raise SourceError(located(source, 0, said)) from None

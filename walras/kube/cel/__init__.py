"""CEL, as Kubernetes has it: parsed, type-checked, with costs estimated and counted; and its patterns.

A program is compiled once for each text and its types, and shared by all clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from walras.kube.cel import ast
from walras.kube.cel.checker import check
from walras.kube.cel.estimate import UNBOUNDED, estimate
from walras.kube.cel.parser import parse
from walras.kube.cel.program import CALL_COST_MAX, Program, program
from walras.kube.cel.tokens import SourceError
from walras.kube.cel.types import DYN, Type
from walras.kube.cel.values import CelError, CostExceeded

__all__ = [
    "CALL_COST_MAX",
    "UNBOUNDED",
    "CelError",
    "CostExceeded",
    "Expression",
    "Program",
    "SourceError",
    "compile_dynamic",
    "compile_typed",
    "names_in",
]


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression and the variables that it reads."""

    program: Program
    node: ast.Node
    names: frozenset[str]

    @property
    def type(self) -> Type:
        return self.program.type

    def cost_max(self) -> int:
        """What it costs at most by its types; UNBOUNDED where nothing says."""
        return estimate(self.node)


def compile_typed(
    source: str,
    variables: Mapping[str, Type],
    structs: Mapping[str, Type] | None = None,
    *,
    binds: bool = False,
) -> Expression:
    """`binds` says whether there is `cel.bind`. Raises SourceError, with cel-go's display of the errors."""
    node = parse(source, binds=binds)
    check(source, node, variables, structs or {})
    return Expression(program(source, node), node, names_in(node))


@lru_cache(maxsize=4096)
def compile_dynamic(source: str, variables: tuple[str, ...], *, binds: bool = False) -> Expression:
    """An expression over variables of any type. Raises SourceError."""
    return compile_typed(source, dict.fromkeys(variables, DYN), binds=binds)


def names_in(node: ast.Node) -> frozenset[str]:
    """Every name that the expression mentions as a variable."""
    found: set[str] = set()
    rest = [node]
    while rest:
        each = rest.pop()
        if isinstance(each, ast.Ident):
            found.add(each.name.removeprefix("."))
        rest += ast.children(each)
    return frozenset(found)

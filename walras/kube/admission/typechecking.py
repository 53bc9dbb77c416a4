"""What is suspicious about a policy's expressions, given the types of what it is about (KEP-3488).

As typechecking.go of apiserver/pkg/admission/plugin/policy/validating: it alters nothing that is decided.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from walras.kube import cel
from walras.kube.admission import expressions
from walras.kube.cel import declared
from walras.kube.cel.types import DYN, Field, Type
from walras.kube.record import Object
from walras.kube.registry import Registry, Resource

TYPES_MAX: Final = 10
# By the clock, for one policy; what has not been looked at by then is not told of.
CHECK_MAX_S: Final = 0.25


def expression_warnings(policy: Object, registry: Registry) -> list[Object]:
    """The `expressionWarnings` of a ValidatingAdmissionPolicy."""
    types = [(kind, _type_of(kind)) for kind in _kinds(policy, registry)]
    ends = time.perf_counter() + CHECK_MAX_S
    typed = [(kind, _Typed(policy, type_, registry)) for kind, type_ in types]
    found: list[Object] = []
    for index, validation in enumerate((policy.get("spec") or {}).get("validations") or ()):
        for field in ("expression", "messageExpression"):
            text = validation.get(field)
            if time.perf_counter() > ends:
                return found
            said = [_said(kind, each.fault(text)) for kind, each in typed] if text else []
            warning = "\n".join(filter(None, said))
            if warning:
                found.append({"fieldRef": f"spec.validations[{index}].{field}", "warning": warning})
    return found


def _said(kind: Resource, fault: str) -> str:
    return f"{kind.group}/{kind.version}, Kind={kind.kind}: {fault}\n" if fault else ""


def _kinds(policy: Object, registry: Registry) -> list[Resource]:
    """What the policy's rules name, wildcards aside, in order."""
    found: dict[tuple[str, str, str], Resource] = {}
    constraints = (policy.get("spec") or {}).get("matchConstraints") or {}
    for rule in constraints.get("resourceRules") or ():
        for kind in _named(rule, registry):
            found[kind.group, kind.version, kind.kind] = kind
            if len(found) == TYPES_MAX:
                break
    return [found[key] for key in sorted(found)]


def _named(rule: Mapping[str, Any], registry: Registry) -> Iterator[Resource]:
    groups, versions = rule.get("apiGroups") or (), rule.get("apiVersions") or ()
    if any("*" in each for each in (*groups, *versions)):
        return
    plurals = sorted(each for each in rule.get("resources") or () if "*" not in each and "/" not in each)
    for group in sorted(groups):
        for version in sorted(versions):
            for plural in plurals:
                kind = registry.find(group, version, plural)
                if kind is not None:
                    yield kind


class _Typed:
    """A policy's expressions where the object is of one kind."""

    def __init__(self, policy: Object, type_: Type, registry: Registry) -> None:
        self._scope: dict[str, Type] = dict(expressions.POLICY)
        self._scope["object"] = self._scope["oldObject"] = type_
        param = (policy.get("spec") or {}).get("paramKind")
        if param:
            group, _, version = str(param.get("apiVersion", "")).rpartition("/")
            known = registry.by_kind(group, version, param.get("kind", ""))
            self._scope["params"] = DYN if known is None else _type_of(known)
        else:
            self._scope.pop("params", None)
        variables: dict[str, Field] = {}
        for each in (policy.get("spec") or {}).get("variables") or ():
            self._scope["variables"] = Type("kubernetes.variables", (), dict(variables))
            variables[each["name"]] = Field(self._variable(each["expression"]), each["name"])
        self._scope["variables"] = Type("kubernetes.variables", (), variables)

    def _variable(self, text: str) -> Type:
        try:
            return cel.compile_typed(text, self._scope).type
        except cel.SourceError:
            return DYN

    def fault(self, text: str) -> str:
        """What is wrong with an expression; "" where nothing is."""
        try:
            cel.compile_typed(text, self._scope)
        except cel.SourceError as error:
            return str(error)
        return ""


def _type_of(kind: Resource) -> Type:
    return declared.type_of(kind.schema, kind.kind) or DYN

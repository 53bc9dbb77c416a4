"""What webhooks and policies of admission have in common: the rules that they name, conditions in CEL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from walras.kube import cel
from walras.kube.validation import names
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

CONDITIONS_MAX: Final = 64
_SCOPES: Final = ("*", "Cluster", "Namespaced")
_OPERATIONS: Final = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")


def one_of(faults: Faults, obj: Object, field: str, supported: tuple[str, ...], path: str) -> None:
    """A fault where the field has a value that is none of those supported."""
    value = obj.get(field)
    if value is not None and value not in supported:
        faults.not_supported(f"{path}.{field}", value, supported)


def rule(faults: Faults, rule: Object, path: str) -> None:
    operations = rule.get("operations") or []
    if not operations:
        faults.required(f"{path}.operations")
    if len(operations) > 1 and "*" in operations:
        detail = "if '*' is present, must not specify other operations"
        faults.invalid(f"{path}.operations", operations, detail)
    for index, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            faults.not_supported(f"{path}.operations[{index}]", operation, _OPERATIONS)
    for field, what in (("apiGroups", "groups"), ("apiVersions", "versions")):
        given = rule.get(field) or []
        if not given:
            faults.required(f"{path}.{field}")
        if len(given) > 1 and "*" in given:
            faults.invalid(f"{path}.{field}", given, f"if '*' is present, must not specify other API {what}")
    for index, version in enumerate(rule.get("apiVersions") or ()):
        if not version:
            faults.required(f"{path}.apiVersions[{index}]")
    _resources(faults, rule.get("resources") or [], f"{path}.resources")
    one_of(faults, rule, "scope", _SCOPES, path)


def _resources(faults: Faults, given: list[str], path: str) -> None:
    if not given:
        faults.required(path)
    whole: set[str] = set()
    below: set[str] = set()
    for index, each in enumerate(given):
        if not each:
            faults.required(f"{path}[{index}]")
            continue
        resource, slash, subresource = each.partition("/")
        if not slash:
            continue
        if resource in whole:
            detail = f"if '{resource}/*' is present, must not specify {each}"
            faults.invalid(f"{path}[{index}]", each, detail)
        if subresource in below:
            detail = f"if '*/{subresource}' is present, must not specify {each}"
            faults.invalid(f"{path}[{index}]", each, detail)
        if subresource == "*":
            whole.add(resource)
        if resource == "*":
            below.add(subresource)
    if len(given) > 1 and "*/*" in given:
        faults.invalid(path, given, "if '*/*' is present, must not specify other resources")
    # As upstream has it: only the last of those without a subresource counts.
    plain = [each for each in given if each and "/" not in each]
    if "*" in plain and plain[-1] != "*":
        detail = "if '*' is present, must not specify other resources without subresources"
        faults.invalid(path, given, detail)


def conditions(
    faults: Faults, given: Iterable[Object], path: str, compile_: Callable[[str], cel.Expression]
) -> None:
    given = list(given)
    if len(given) > CONDITIONS_MAX:
        faults.too_many(path, len(given), CONDITIONS_MAX)
    seen: set[str] = set()
    for index, condition in enumerate(given[:CONDITIONS_MAX]):
        at, name = f"{path}[{index}]", condition.get("name", "")
        text = str(condition.get("expression") or "").strip()
        if not text:
            faults.required(f"{at}.expression")
        else:
            compiles(faults, text, f"{at}.expression", compile_, "bool")
        if not name:
            faults.required(f"{at}.name")
        else:
            faults.each(f"{at}.name", name, names.qualified_name(name))
        if name and name in seen:
            faults.duplicate(f"{at}.name", name)
        seen.add(name)


def compiles(
    faults: Faults, text: str, path: str, compile_: Callable[[str], cel.Expression], *wanted: str
) -> None:
    try:
        found = compile_(text).type
    except cel.SourceError as error:
        faults.invalid(path, text, f"compilation failed: {error}")
        return
    if found.name not in wanted:
        # Types as values have other names.
        names_of = ["null_type" if each == "null" else each for each in wanted]
        many = f"one of [{' '.join(names_of)}]" if len(wanted) > 1 else wanted[0]
        faults.invalid(path, text, f"must evaluate to {many} but got {found}")

"""The CEL rules of a CustomResourceDefinition: that they compile, and may not cost too much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from walras.kube import cel
from walras.kube.cel.declared import REQUEST_BYTES_MAX, least_bytes, type_of
from walras.kube.cel.estimate import UNBOUNDED
from walras.kube.cel.types import DYN
from walras.kube.schema import Schema
from walras.kube.validation.faults import Faults, Struct
from walras.kube.validation.rules import compile_rule, has_rules

Object = Mapping[str, Any]

# As upstream (StaticEstimatedCostLimit and StaticEstimatedCRDCostLimit).
RULE_ESTIMATE_MAX: Final = 10_000_000
SCHEMA_ESTIMATE_MAX: Final = 100_000_000
RULES_MAX: Final = 256
_REASONS: Final = (
    "FieldValueRequired", "FieldValueForbidden", "FieldValueInvalid", "FieldValueDuplicate",
)  # fmt: skip
_ADVICE: Final = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and "
    "strings are declared)"
)


def words(faults: Faults, rule: Object, path: str) -> None:
    """Faults of what a rule says beside its expressions."""
    text, message = str(rule.get("rule") or "").strip(), rule.get("message") or ""
    said = message.strip()
    if not text:
        faults.required(f"{path}.rule", "rule is not specified")
    elif message and not said:
        faults.invalid(f"{path}.message", message, "must be non-empty if specified")
    elif "\n" in said:
        faults.invalid(f"{path}.message", message, "must not contain line breaks")
    elif "\n" in text and not said:
        faults.required(f"{path}.message", "message must be specified if rule contains line breaks")
    if rule.get("messageExpression") and not rule["messageExpression"].strip():
        faults.required(f"{path}.messageExpression", "messageExpression must be non-empty if specified")
    if rule.get("reason") is not None and rule["reason"] not in _REASONS:
        faults.not_supported(f"{path}.reason", rule["reason"], sorted(_REASONS))


@dataclass
class _Budget:
    """What all rules of a schema may cost together, and those that count most."""

    total: int = 0
    dearest: list[tuple[int, str]] = field(default_factory=list)

    def add(self, path: str, cost: int) -> None:
        self.total += cost
        if cost >= SCHEMA_ESTIMATE_MAX // 100:
            self.dearest = sorted([*self.dearest, (cost, path)], reverse=True)[:4]


def check(faults: Faults, raw: Object, path: str, *, unchanged: bool = False) -> None:
    """Faults of every rule in a version's structural schema. `unchanged` costs are not looked at."""
    budget = _Budget()
    _walk(faults, budget, Schema(raw), path, 1, "", unchanged=unchanged, root=True)
    if budget.total > SCHEMA_ESTIMATE_MAX:
        for _, at in budget.dearest:
            faults.forbidden(
                at,
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
            )
        what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        faults.forbidden(path, _over(what, budget.total, SCHEMA_ESTIMATE_MAX))


def _over(what: str, cost: int, limit: int) -> str:
    factor = cost / limit
    shown = "more than 100x" if factor > 100 else f"{factor:f}x" if factor < 1.5 else f"{factor:.1f}x"
    return f"{what} exceeds budget by factor of {shown} {_ADVICE}"


def _walk(
    faults: Faults,
    budget: _Budget,
    schema: Schema,
    path: str,
    times: int | None,
    uncorrelatable: str,
    *,
    unchanged: bool,
    root: bool = False,
) -> None:
    """`times`: how often the part may be in one object; None where nothing bounds that."""
    if not has_rules(schema):
        return
    raw = schema.raw
    rules = raw.get("x-kubernetes-validations") or ()
    if rules:
        kind = type_of(schema, root=root) or DYN
        for index, rule in enumerate(rules):
            at = f"{path}.x-kubernetes-validations[{index}]"
            count = times if times is not None else (REQUEST_BYTES_MAX - 2) // (least_bytes(schema) + 1)
            _rule(faults, budget, rule, kind, at, count, uncorrelatable, unchanged=unchanged)

    def deeper(node: Schema | None, at: str, factor: int | None, lost: str) -> None:
        if node is not None:
            count = None if times is None or factor is None else times * factor
            _walk(faults, budget, node, at, count, lost, unchanged=unchanged)

    for name in raw.get("properties") or ():
        deeper(schema.child(name), f"{path}.properties[{name}]", 1, uncorrelatable)
    if schema.items is not None:
        at = f"{path}.items"
        lost = uncorrelatable or ("" if schema.list_type == "map" else path)
        deeper(schema.items, at, raw.get("maxItems"), lost)
    if isinstance(raw.get("additionalProperties"), Mapping):
        deeper(schema.values, f"{path}.additionalProperties", raw.get("maxProperties"), uncorrelatable)


def _rule(
    faults: Faults, budget: _Budget, raw: Object, kind: Any, path: str, times: int, uncorrelatable: str,
    *, unchanged: bool,
) -> None:  # fmt: skip
    rule = compile_rule(raw, kind)
    shown = Struct({
        "Rule": raw.get("rule", ""), "Message": raw.get("message", ""),
        "MessageExpression": raw.get("messageExpression", ""), "Reason": raw.get("reason"),
        "FieldPath": raw.get("fieldPath", ""), "OptionalOldSelf": raw.get("optionalOldSelf"),
    })  # fmt: skip
    if rule.error or rule.program is None:
        faults.invalid(f"{path}.rule", shown, rule.error)
        return
    _cost(faults, budget, f"{path}.rule", "estimated rule cost", rule.program, times, unchanged=unchanged)
    if rule.message_error:
        faults.invalid(f"{path}.messageExpression", shown, rule.message_error)
    elif rule.message is not None:
        what = "estimated messageExpression cost"
        _cost(faults, budget, f"{path}.messageExpression", what, rule.message, 1, unchanged=unchanged)
    if rule.transition and uncorrelatable:
        detail = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelatable}"
        faults.invalid(f"{path}.rule", raw.get("rule", ""), detail)
    elif not rule.transition and raw.get("optionalOldSelf") is not None:
        detail = "may not be set if oldSelf is not used in rule"
        faults.invalid(f"{path}.optionalOldSelf", raw["optionalOldSelf"], detail)


def _cost(
    faults: Faults, budget: _Budget, path: str, what: str, program: cel.Expression, times: int,
    *, unchanged: bool,
) -> None:  # fmt: skip
    cost = min(program.cost_max() * times, UNBOUNDED)
    if cost > RULE_ESTIMATE_MAX and not unchanged:
        faults.forbidden(path, _over(what, cost, RULE_ESTIMATE_MAX))
    budget.add(path, cost)

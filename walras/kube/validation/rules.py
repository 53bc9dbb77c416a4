"""CEL rules of custom resources (KEP-2876): compiled by schema, run within budgets, ratcheted (KEP-4008)."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from walras.kube import cel
from walras.kube.cel.declared import type_of
from walras.kube.cel.types import BOOL, DYN, Type, optional_of
from walras.kube.cel.values import NONE, Optional
from walras.kube.schema import Schema
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

# As upstream: what the rules of one object may cost together.
OBJECT_COST_MAX: Final = 10_000_000
# Costs are Go's; by the clock the rules of one object hold up all other clusters no longer than this.
OBJECT_MAX_S: Final = 0.25
MESSAGE_MAX_CHARACTERS: Final = 5_120
MISSING: Final = object()
_OUT_OF_BUDGET: Final = (
    "validation failed due to running out of cost budget, no further validation rules will be run"
)
STEP: Final = re.compile(r"\.([^.\[\]]+)|\['((?:\\.|[^'\\])*)'\]")


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule; `message` is its messageExpression."""

    raw: Object
    program: cel.Expression | None
    message: cel.Expression | None
    error: str = ""
    message_error: str = ""

    @property
    def transition(self) -> bool:
        """Whether it compares with the old value."""
        return self.program is not None and "oldSelf" in self.program.names

    @property
    def optional_old(self) -> bool:
        return bool(self.raw.get("optionalOldSelf"))

    @property
    def shown(self) -> str:
        return str(self.raw.get("message") or self.raw.get("rule", "")).strip()


def compile_rule(raw: Object, self_type: Type) -> Rule:
    """The rule over `self` and `oldSelf` of the type; what is wrong with it is in its errors."""
    old = optional_of(self_type) if raw.get("optionalOldSelf") else self_type
    variables = {"self": self_type, "oldSelf": old}
    text = str(raw.get("rule") or "")
    try:
        program = cel.compile_typed(text, variables)
    except cel.SourceError as error:
        return Rule(raw, None, None, f"compilation failed: {error}")
    if program.type != BOOL:
        return Rule(raw, None, None, "cel expression must evaluate to a bool")
    said = raw.get("messageExpression")
    if not said:
        return Rule(raw, program, None)
    try:
        message = cel.compile_typed(str(said), variables)
    except cel.SourceError as error:
        return Rule(raw, program, None, "", f"messageExpression compilation failed: {error}")
    if message.type.name != "string":
        return Rule(raw, program, None, "", "messageExpression must evaluate to a string")
    return Rule(raw, program, message)


def rules_of(schema: Schema, *, root: bool) -> tuple[Rule, ...]:
    """The schema's own rules, compiled when first asked for and kept with it."""
    if schema.rules is None:
        raw = schema.raw.get("x-kubernetes-validations") or ()
        kind = type_of(schema, root=root) if raw else None
        schema.rules = tuple(compile_rule(each, kind or DYN) for each in raw)
    found: tuple[Rule, ...] = schema.rules
    return found


def run(faults: Faults, schema: Schema, obj: Any, old: Any) -> None:
    """Faults by the rules of the schema and of everything below; `old` is MISSING on create."""
    _Walk(faults).value(schema, obj, old, "", root=True)


class _Walk:
    """One object's walk through the rules of its schema, within the budget."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.left = OBJECT_COST_MAX
        self.deadline = time.perf_counter() + OBJECT_MAX_S

    def value(self, schema: Schema, value: Any, old: Any, path: str, root: bool = False) -> None:
        if schema.ref or self.left < 0 or not has_rules(schema):
            return
        unchanged = old is not MISSING and value == old
        if value is not None:
            for rule in rules_of(schema, root=root):
                # What has not changed is not held against who changes something else.
                if self.left >= 0 and (rule.transition or not unchanged):
                    self._rule(rule, schema, value, old, path)
        self._below(schema, value, old, path)

    def _below(self, schema: Schema, value: Any, old: Any, path: str) -> None:
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for name, item in value.items():
                node = schema.child(name)
                if node is not None:
                    at = below(path, name) if name in schema.properties else f"{path}[{name}]"
                    self.value(node, item, before.get(name, MISSING), at)
        elif isinstance(value, list) and schema.items is not None:
            keys = schema.list_map_keys if schema.list_type == "map" else ()
            known = {_key(item, keys): item for item in old} if keys and isinstance(old, list) else {}
            for index, item in enumerate(value):
                before_item = known.get(_key(item, keys), MISSING) if keys else MISSING
                self.value(schema.items, item, before_item, f"{path}[{index}]")

    def _rule(self, rule: Rule, schema: Schema, value: Any, old: Any, path: str) -> None:
        kind = schema.raw.get("type", "")
        if rule.error or rule.program is None:
            self.faults.invalid(path, kind, f"rule compile error: {rule.error}")
            return
        missing = old is MISSING or old is None
        if rule.transition and missing and not rule.optional_old:
            return
        before: Any = None if missing else old
        if rule.optional_old:
            before = NONE if missing else Optional(True, old)
        variables = {"self": value, "oldSelf": before}
        try:
            held, cost = rule.program.program.run(variables, deadline=self.deadline)
        except cel.CelError as error:
            self._failed(rule, kind, path, error)
            return
        if not self._spend(cost, kind, path) or held is True:
            return
        place = path + normal_path(rule.raw.get("fieldPath", ""))
        self._fault(rule, kind, place if path else place.removeprefix("."), value, variables)

    def _failed(self, rule: Rule, kind: str, path: str, error: cel.CelError) -> None:
        said = str(error)
        if isinstance(error, cel.CostExceeded):
            self.left = -1
            why = "no further validation rules will be run due to call cost exceeds limit for rule"
            self.faults.invalid(path, kind, f"'{said}': {why}: {rule.shown}")
        elif self._spend(getattr(error, "cost", 0), kind, path):
            if said.startswith("no such overload"):
                why = (
                    "call arguments did not match a supported operator, function or macro signature for rule"
                )
                self.faults.invalid(path, kind, f"'{said}': {why}: {rule.shown}")
            else:
                self.faults.invalid(path, kind, f"{said} evaluating rule: {rule.shown}")

    def _spend(self, cost: int, kind: str, path: str) -> bool:
        self.left -= cost
        if self.left < 0 or time.perf_counter() > self.deadline:
            self.left = -1
            self.faults.invalid(path, kind, _OUT_OF_BUDGET)
            return False
        return True

    def _fault(self, rule: Rule, kind: str, path: str, value: Any, variables: Object) -> None:
        detail = self._message(rule, kind, path, variables)
        if detail is None:
            return
        match rule.raw.get("reason"):
            case "FieldValueForbidden":
                self.faults.forbidden(path, detail)
            case "FieldValueRequired":
                self.faults.required(path, detail)
            case "FieldValueDuplicate" if kind in ("object", "array"):
                self.faults.without_value("FieldValueDuplicate", path, "")
            case "FieldValueDuplicate":
                self.faults.duplicate(path, value)
            case _ if kind in ("object", "array"):
                self.faults.without_value("FieldValueInvalid", path, detail)
            case _:
                self.faults.invalid(path, value, detail)

    def _message(self, rule: Rule, kind: str, path: str, variables: Object) -> str | None:
        """What to say; None where even saying it took too much."""
        if rule.message is not None:
            try:
                said, cost = rule.message.program.run(variables, deadline=self.deadline)
            except cel.CelError as error:
                said, cost = None, getattr(error, "cost", 0)
            if not self._spend(cost, kind, path):
                return None
            usable = isinstance(said, str) and said.strip() and "\n" not in said.strip()
            if usable and len(said) <= MESSAGE_MAX_CHARACTERS:
                return str(said).strip()
        if rule.raw.get("message"):
            return str(rule.raw["message"]).strip()
        return f"failed rule: {str(rule.raw.get('rule', '')).strip()}"


def _key(item: Any, keys: tuple[str, ...]) -> Any:
    return tuple(str(item.get(name)) for name in keys) if isinstance(item, dict) else None


def below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def normal_path(text: str) -> str:
    """A rule's fieldPath as faults write paths: every step with a dot."""
    return "".join("." + (plain or quoted) for plain, quoted in STEP.findall(text))


def has_rules(schema: Schema) -> bool:
    """Whether the schema, or one below it, has rules: most have none."""
    if schema.ruled is None:
        schema.ruled = _mentions_rules(schema.raw)
    return schema.ruled


def _mentions_rules(raw: Any) -> bool:
    rest = [raw]
    while rest:
        node = rest.pop()
        if not isinstance(node, Mapping):
            continue
        if node.get("x-kubernetes-validations"):
            return True
        properties = node.get("properties")
        if isinstance(properties, Mapping):
            rest += properties.values()
        rest += [node.get("items"), node.get("additionalProperties")]
    return False

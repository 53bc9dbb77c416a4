"""Policies of admission in CEL: compiled, matched with their bindings and parameters (KEP-3488, KEP-3962)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from walras.core.errors import NotFound
from walras.kube import cel, versions
from walras.kube.admission import expressions
from walras.kube.admission.call import Call
from walras.kube.admission.matching import matched, selects_namespace, selects_object
from walras.kube.cel.types import DYN, Field, Type
from walras.kube.record import Object
from walras.kube.registry import Resource
from walras.kube.selectors import from_label_selector

COMPILED_MAX: Final = 1_024
# The variables that parameters are not there for.
_WITHOUT_PARAMS: Final = "params"


class Misconfigured(Exception):
    """A policy or binding that cannot be evaluated; the text says why."""


class AnyObject(dict[str, Type]):
    """Names of the structs that mutations make: `Object` and whatever is below it, and `JSONPatch`."""

    def get(self, name: str, default: Any = None) -> Any:
        if name == "Object" or name.startswith("Object."):
            return Type(name)
        return super().get(name, default)


_TEXT: Final = Type("string")
_PATCH_FIELDS: Final = {"op": _TEXT, "path": _TEXT, "from": _TEXT, "value": DYN}
PATCH: Final = Type("JSONPatch", (), {name: Field(kind, name) for name, kind in _PATCH_FIELDS.items()})
STRUCTS: Final = AnyObject({"JSONPatch": PATCH})


@dataclass(frozen=True)
class Policy:
    """A policy of either kind, and its expressions, each compiled when it is first needed."""

    raw: Object

    @property
    def name(self) -> str:
        return str(self.raw["metadata"].get("name", ""))

    @property
    def spec(self) -> Object:
        return self.raw.get("spec") or {}

    @property
    def fails(self) -> bool:
        return bool(self.spec.get("failurePolicy", "Fail") == "Fail")

    @cached_property
    def variables(self) -> Mapping[str, cel.Expression]:
        """The policy's variables in order, each over those before it. Raises SourceError."""
        found: dict[str, cel.Expression] = {}
        for each in self.spec.get("variables") or ():
            text = each.get("expression", "")
            found[each.get("name", "")] = cel.compile_typed(text, self._scope(found), STRUCTS)
        return found

    @cached_property
    def scope(self) -> Mapping[str, Type]:
        return self._scope(self.variables)

    def _scope(self, known: Mapping[str, cel.Expression]) -> Mapping[str, Type]:
        fields = {name: Field(each.type, name) for name, each in known.items()}
        scope = {**expressions.POLICY, "variables": Type("kubernetes.variables", (), fields)}
        if not self.spec.get("variables"):
            del scope["variables"]
        if not self.spec.get("paramKind"):
            del scope[_WITHOUT_PARAMS]
        return scope

    def expression(self, text: str) -> cel.Expression:
        """Raises SourceError."""
        known = self._compiled.get(text)
        if known is None:
            known = self._compiled[text] = cel.compile_typed(text, self.scope, STRUCTS)
        return known

    @cached_property
    def _compiled(self) -> dict[str, cel.Expression]:
        return {}


class Lazy(dict[str, Any]):
    """Variables, evaluated when an expression first reads them."""

    def __init__(self, policy: Policy, evaluator: expressions.Evaluator) -> None:
        super().__init__()
        self._policy = policy
        self._evaluator = evaluator

    def __missing__(self, name: str) -> Any:
        value = self[name] = self._evaluator.run(self._policy.variables[name])
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._policy.variables


class Policies:
    """The compiled policies of all clusters, those used last."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], Policy] = OrderedDict()

    def of(self, raw: Object) -> Policy:
        key = (raw["metadata"]["uid"], raw["metadata"]["resourceVersion"])
        found = self._known.get(key)
        # A backup brings uids to other clusters, which go on from there each with versions of its own.
        if found is None or (found.raw is not raw and found.raw != raw):
            found = self._known[key] = Policy(raw)
            while len(self._known) > COMPILED_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return found


@dataclass(frozen=True, slots=True)
class Bound:
    """A policy that concerns a write by a binding, with one of its parameters; or what is wrong with it."""

    policy: Policy
    binding: Object | None
    version: Resource
    param: Object | None = None
    fault: str = ""


def bound(call: Call, policy: Policy, bindings: list[Object]) -> Iterator[Bound]:
    """Every way in which the policy concerns the write."""
    registry = call.api.registry(call.ctx.cluster)
    version = _covers(policy.spec.get("matchConstraints") or {}, call)
    if version is None:
        return
    kind = policy.spec.get("paramKind")
    for binding in bindings:
        spec = binding.get("spec") or {}
        if spec.get("policyName") != policy.name:
            continue
        resources = spec.get("matchResources")
        if resources is not None and _covers(resources, call, optional=True) is None:
            continue
        if kind is None:
            yield Bound(policy, binding, version)
            continue
        try:
            params = _params(call, kind, spec.get("paramRef") or {}, registry.by_kind)
        except Misconfigured as error:
            yield Bound(policy, binding, version, fault=f"failed to configure binding: {error}")
            continue
        for param in params:
            yield Bound(policy, binding, version, param)


def _covers(match: Mapping[str, Any], call: Call, *, optional: bool = False) -> Resource | None:
    """The version in which matchConstraints or matchResources want the write, None where they do not."""
    registry = call.api.registry(call.ctx.cluster)
    policy = match.get("matchPolicy") or "Equivalent"
    try:
        if not selects_namespace(match.get("namespaceSelector"), call):
            return None
    except NotFound:
        return None
    if not selects_object(match.get("objectSelector"), call):
        return None
    excluded = [rule for rule in match.get("excludeResourceRules") or () if _of_name(rule, call)]
    if excluded and matched(excluded, policy, call, registry) is not None:
        return None
    rules = match.get("resourceRules") or ()
    if not rules and optional:
        return call.resource
    return matched([rule for rule in rules if _of_name(rule, call)], policy, call, registry)


def _of_name(rule: Mapping[str, Any], call: Call) -> bool:
    names = rule.get("resourceNames") or ()
    return not names or expressions.name_of(call) in names


def _params(
    call: Call, kind: Mapping[str, Any], reference: Mapping[str, Any],
    by_kind: Callable[[str, str, str], Resource | None],
) -> list[Object | None]:  # fmt: skip
    """The parameters that a binding refers to, in the version of the kind. Raises Misconfigured."""
    group, _, version = str(kind.get("apiVersion", "")).rpartition("/")
    resource = by_kind(group, version, str(kind.get("kind")))
    if resource is None:
        where = f"{group}/{version}" if group else version
        raise Misconfigured(
            f"failed to find resource referenced by paramKind: '{where}, Kind={kind.get('kind')}'"
        )
    namespace = str(reference.get("namespace") or "")
    if resource.namespaced and not namespace:
        if not call.namespace:
            why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
            raise Misconfigured(why)
        namespace = call.namespace
    elif not resource.namespaced and namespace:
        raise Misconfigured("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
    found: list[Object] = []
    if reference.get("name"):
        param = call.tx.peek(call.ctx.cluster, resource.storage.key, namespace, str(reference["name"]))
        found = versions.all_served(resource, [] if param is None else [param], call.ctx.conversions)
    elif reference.get("selector") is not None:
        selector = from_label_selector(reference["selector"])
        stored = call.api.list(call.ctx.cluster, resource.storage.key, namespace)
        stored = versions.all_served(resource, stored, call.ctx.conversions)
        found = [each for each in stored if selector.matches(each["metadata"].get("labels") or {})]
    else:
        raise Misconfigured("one of name or selector must be provided")
    if not found and reference.get("parameterNotFoundAction") == "Deny":
        raise Misconfigured("no params found for policy binding with `Deny` parameterNotFoundAction")
    return list(found)


def evaluator(call: Call, given: Bound) -> expressions.Evaluator:
    """What evaluates the expressions of a policy over the write."""
    made = expressions.Evaluator(call, given.version, expressions.POLICY_COST_MAX)
    made.variables["namespaceObject"] = expressions.namespace_of(call)
    made.variables["params"] = given.param
    made.variables["variables"] = Lazy(given.policy, made)
    return made


def meets(evaluate: expressions.Evaluator, policy: Policy) -> tuple[bool, str]:
    """Whether the matchConditions hold; and what failed where that counts."""
    failures = []
    for each in policy.spec.get("matchConditions") or ():
        text = each.get("expression", "")
        try:
            if evaluate.run(policy.expression(text)) is False:
                return False, ""
        except (cel.CelError, cel.SourceError) as error:
            failures.append(f"expression '{text}' resulted in error: {error}")
    if failures:
        said = failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]"
        return False, said if policy.fails else ""
    return True, ""

"""MutatingAdmissionPolicy (KEP-3962): writes that a cluster's own expressions change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from walras.core.errors import Denied, InternalError, WalrasError
from walras.kube import cel, typed
from walras.kube.admission import expressions, shaping
from walras.kube.admission.call import Call
from walras.kube.admission.configured import MUTATING_BINDINGS, MUTATING_POLICIES, Configured
from walras.kube.admission.policies import Bound, Policies, bound, evaluator, meets
from walras.kube.cel.values import plain
from walras.kube.objects import details
from walras.kube.patch import json_patch, same
from walras.kube.record import Object, copy


class _Unusable(Exception):
    """A mutation that yields nothing that could be applied."""


def mutate(call: Call, configured: Configured, policies: Policies) -> bool:
    """Changes the object in place by every policy that concerns it; whether any did. Raises Denied."""
    raws = configured.of(call.ctx.cluster, MUTATING_POLICIES)
    if not raws or call.new is None or call.operation not in ("CREATE", "UPDATE"):
        return False
    bindings = configured.of(call.ctx.cluster, MUTATING_BINDINGS)
    changed = _round(call, policies, [(raw, bindings) for raw in raws])
    if changed:
        again = [raw for raw in raws if (raw.get("spec") or {}).get("reinvocationPolicy") == "IfNeeded"]
        _round(call, policies, [(raw, bindings) for raw in again])
    return changed


def _round(call: Call, policies: Policies, given: list[tuple[Object, list[Object]]]) -> bool:
    changed = False
    for raw, bindings in given:
        for each in bound(call, policies.of(raw), bindings):
            changed = _applied(call, each) or changed
    return changed


def _applied(call: Call, given: Bound) -> bool:
    policy = given.policy
    if given.fault:
        if policy.fails:
            raise _refusal(call, given, given.fault)
        return False
    holds, failure = meets(evaluator(call, given), policy)
    if failure:
        raise _refusal(call, given, failure)
    changed = False
    for mutation in policy.spec.get("mutations") or () if holds else ():
        try:
            changed = _mutated(call, given, mutation) or changed
        except (cel.CelError, cel.SourceError, _Unusable) as error:
            if policy.fails:
                raise _refusal(call, given, str(error)) from None
    return changed


def _refusal(call: Call, given: Bound, why: str) -> Denied:
    binding = (given.binding or {"metadata": {"name": ""}})["metadata"]["name"]
    said = f"policy '{given.policy.name}' with binding '{binding}' denied request: {why}"
    key = call.resource.key
    return Denied(
        f'{key} "{call.name}" is forbidden: {said}', 422, "Invalid", details=details(key, call.name)
    )


def _mutated(call: Call, given: Bound, mutation: Mapping[str, Any]) -> bool:
    """Applies one mutation; whether it changed anything."""
    assert call.new is not None
    current = expressions.shown(call, given.version, call.new)
    assert current is not None
    evaluate = evaluator(call, given)
    if mutation.get("patchType") == "JSONPatch":
        text = str((mutation.get("jsonPatch") or {}).get("expression", ""))
        result = _patched(current, plain(evaluate.run(given.policy.expression(text))))
    else:
        text = str((mutation.get("applyConfiguration") or {}).get("expression", ""))
        result = _merged(given, current, plain(evaluate.run(given.policy.expression(text))))
    made = shaping.stored(call, given.version, result)
    if same(made, call.new):
        return False
    call.new.clear()
    call.new.update(made)
    return True


def _patched(current: Object, operations: Any) -> Object:
    if not isinstance(operations, list):
        raise _Unusable("type mismatch: JSONPatchType.expression should evaluate to array")
    try:
        patched = json_patch(copy(current), operations)
    except WalrasError as error:
        raise _Unusable(f"JSON Patch: {error.message}") from None
    if not isinstance(patched, dict):
        raise InternalError("a mutation left no object")
    return patched


def _merged(given: Bound, current: Object, configuration: Any) -> Object:
    if not isinstance(configuration, dict):
        raise _Unusable("type mismatch: ApplyConfiguration.expression should evaluate to Object")
    root = typed.object_type(given.version.schema)
    try:
        return typed.merge(root, current, configuration)
    except WalrasError as error:
        raise _Unusable(f"error applying patch: {error.message}") from None

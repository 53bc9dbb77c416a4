"""ValidatingAdmissionPolicy (KEP-3488): writes that a cluster's own rules refuse, warn of, or note."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from walras.core.errors import Cause, Denied
from walras.kube import cel
from walras.kube.admission.call import NOTE_CHARACTERS_MAX, Call
from walras.kube.admission.configured import VALIDATING_BINDINGS, VALIDATING_POLICIES, Configured
from walras.kube.admission.expressions import OUT_OF_BUDGET, Evaluator
from walras.kube.admission.policies import Bound, Policies, bound, evaluator, meets
from walras.kube.objects import details

MESSAGE_BYTES_MAX: Final = 5 * 1024
_FAILURE: Final = "validation.policy.admission.k8s.io/validation_failure"
# In the place of a validation's index: an audit annotation's fault, which denies whatever the binding says.
_OF_AN_ANNOTATION: Final = -1
_CODES: Final = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a write does not comply with a policy."""

    given: Bound
    message: str
    reason: str = ""
    index: int = 0


def validate(call: Call, configured: Configured, policies: Policies) -> None:
    """Raises Denied for the first decision that a binding says to enforce; tells of the others."""
    raws = configured.of(call.ctx.cluster, VALIDATING_POLICIES)
    if not raws:
        return
    bindings = configured.of(call.ctx.cluster, VALIDATING_BINDINGS)
    denied: list[Decision] = []
    for raw in raws:
        notes: dict[str, list[str]] = {}
        for given in bound(call, policies.of(raw), bindings):
            actions = ((given.binding or {}).get("spec") or {}).get("validationActions") or ("Deny",)
            for decision in _decisions(call, given, notes):
                if "Deny" in actions or decision.index == _OF_AN_ANNOTATION:
                    denied.append(decision)
                if decision.index == _OF_AN_ANNOTATION:
                    continue
                if "Audit" in actions:
                    call.note(_FAILURE, _failure(decision, list(actions)))
                if "Warn" in actions:
                    said = f"Validation failed for ValidatingAdmissionPolicy {_named(decision)}"
                    call.ctx.warnings.append(f"{said}: {decision.message}")
        for key, values in notes.items():
            call.note(f"{raw['metadata']['name']}/{key}", ", ".join(dict.fromkeys(values)))
    if denied:
        raise _refusal(call, denied[0])


def _named(decision: Decision) -> str:
    given = decision.given
    assert given.binding is not None
    return f"'{given.policy.name}' with binding '{given.binding['metadata']['name']}'"


def _refusal(call: Call, decision: Decision) -> Denied:
    why = f"ValidatingAdmissionPolicy {_named(decision)} denied request: {decision.message}"
    reason = decision.reason or "Invalid"
    resource = call.resource.key
    return Denied(
        f'{resource} "{call.name}" is forbidden: {why}',
        _CODES.get(reason, 422),
        reason,
        causes=(Cause("", why),),
        details=details(resource, call.name),
    )


def _failure(decision: Decision, actions: list[str]) -> str:
    assert decision.given.binding is not None
    failure = {
        "message": decision.message,
        "policy": decision.given.policy.name,
        "binding": decision.given.binding["metadata"]["name"],
        "expressionIndex": max(0, decision.index),
        "validationActions": actions,
    }
    return json.dumps([failure], separators=(",", ":"), ensure_ascii=False)


def _decisions(call: Call, given: Bound, notes: dict[str, list[str]]) -> Iterator[Decision]:
    """What does not comply, and what could not be evaluated where that counts.

    What the policy has to say to the audit log comes into `notes`.
    """
    policy = given.policy
    if given.fault:
        if policy.fails:
            yield Decision(given, given.fault)
        return
    evaluate = evaluator(call, given)
    try:
        holds, failure = meets(evaluate, policy)
    except cel.SourceError as error:
        holds, failure = False, str(error) if policy.fails else ""
    if failure:
        yield Decision(given, failure)
    if not holds:
        return
    for index, validation in enumerate(policy.spec.get("validations") or ()):
        text = str(validation.get("expression", "")).strip()
        try:
            if evaluate.run(policy.expression(text)) is True:
                continue
        except (cel.CelError, cel.SourceError) as error:
            if policy.fails:
                said = str(error) if str(error) == OUT_OF_BUDGET else _failed(text, error)
                yield Decision(given, said, str(validation.get("reason") or ""), index)
            continue
        message = _message(evaluate, given, validation, text)
        yield Decision(given, message, str(validation.get("reason") or ""), index)
    yield from _noted(evaluate, given, notes)


def _noted(evaluate: Evaluator, given: Bound, notes: dict[str, list[str]]) -> Iterator[Decision]:
    policy = given.policy
    for annotation in policy.spec.get("auditAnnotations") or ():
        text = str(annotation.get("valueExpression", "")).strip()
        try:
            value = evaluate.run(policy.expression(text))
        except (cel.CelError, cel.SourceError) as error:
            if policy.fails:
                yield Decision(given, _failed(text, error), index=_OF_AN_ANNOTATION)
            continue
        if isinstance(value, str) and value.strip():
            notes.setdefault(annotation["key"], []).append(value.strip()[:NOTE_CHARACTERS_MAX])


def _failed(text: str, error: Exception) -> str:
    return f"expression '{text}' resulted in error: {error}"


def _message(evaluate: Evaluator, given: Bound, validation: dict[str, Any], text: str) -> str:
    if validation.get("messageExpression"):
        try:
            said = evaluate.run(given.policy.expression(validation["messageExpression"]))
        except (cel.CelError, cel.SourceError):
            said = None
        usable = isinstance(said, str) and said.strip() and "\n" not in said.strip()
        if usable and len(said) <= MESSAGE_BYTES_MAX:
            return str(said).strip()
    if validation.get("message"):
        return str(validation["message"]).strip()
    return f"failed expression: {text}"

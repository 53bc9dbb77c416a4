"""ValidatingAdmissionPolicy (KEP-3488): writes that a cluster's own rules refuse, warn of, or note."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from walras.core.errors import Cause, Denied
from walras.kube import cel
from walras.kube.admission.call import Call
from walras.kube.admission.configured import VALIDATING_BINDINGS, VALIDATING_POLICIES, Configured
from walras.kube.admission.expressions import OUT_OF_BUDGET, Evaluator
from walras.kube.admission.policies import Bound, Policies, bound, evaluator, meets
from walras.kube.objects import details

MESSAGE_BYTES_MAX: Final = 5 * 1024
_CODES: Final = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a write does not comply with a policy."""

    given: Bound
    message: str
    reason: str = ""


def validate(call: Call, configured: Configured, policies: Policies) -> None:
    """Raises Denied for the first decision that a binding says to enforce; tells of the others."""
    raws = configured.of(call.ctx.cluster, VALIDATING_POLICIES)
    if not raws:
        return
    bindings = configured.of(call.ctx.cluster, VALIDATING_BINDINGS)
    denied: list[Decision] = []
    for raw in raws:
        for given in bound(call, policies.of(raw), bindings):
            actions = ((given.binding or {}).get("spec") or {}).get("validationActions") or ("Deny",)
            for decision in _decisions(call, given):
                if "Deny" in actions:
                    denied.append(decision)
                if "Warn" in actions:
                    said = f"Validation failed for ValidatingAdmissionPolicy {_named(decision)}"
                    call.ctx.warnings.append(f"{said}: {decision.message}")
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


def _decisions(call: Call, given: Bound) -> Iterator[Decision]:
    """What does not comply, and what could not be evaluated where that counts."""
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
    for validation in policy.spec.get("validations") or ():
        text = str(validation.get("expression", "")).strip()
        try:
            if evaluate.run(policy.expression(text)) is True:
                continue
        except (cel.CelError, cel.SourceError) as error:
            if policy.fails:
                said = str(error) if str(error) == OUT_OF_BUDGET else _failed(text, error)
                yield Decision(given, said, str(validation.get("reason") or ""))
            continue
        yield Decision(
            given, _message(evaluate, given, validation, text), str(validation.get("reason") or "")
        )


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

"""Access of administrators to devices (KEP-5018): only in namespaces that are labelled for it."""

from __future__ import annotations

from typing import Final

from walras.kube import validation
from walras.kube.admission.call import Call
from walras.kube.objects import NAMESPACES
from walras.kube.validation.faults import Faults

TEMPLATES: Final = "resourceclaimtemplates.resource.k8s.io"
ADMIN_LABEL: Final = "resource.kubernetes.io/admin-access"


def administered(call: Call) -> None:
    """Raises Invalid for a claim, a template or an allocation with such access elsewhere."""
    path = _requested(call) if call.operation == "CREATE" else _granted(call)
    if not path:
        return
    namespace = call.tx.peek(call.ctx.cluster, NAMESPACES, "", call.namespace)
    labels = (namespace or {}).get("metadata", {}).get("labels") or {}
    if labels.get(ADMIN_LABEL) != "true":
        faults = Faults()
        faults.forbidden(
            path,
            f"admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace",
        )
        raise validation.invalid(call.resource, call.name, faults)


def _requested(call: Call) -> str:
    """Where the first such request is; "" where there is none."""
    spec = call.object.get("spec") or {}
    if call.key == TEMPLATES:
        spec = spec.get("spec") or {}
    for number, each in enumerate((spec.get("devices") or {}).get("requests") or ()):
        if (each.get("exactly") or {}).get("adminAccess"):
            return f"spec.devices.requests[{number}].adminAccess"
    return ""


def _granted(call: Call) -> str:
    """The same of an allocation that an update adds."""
    if call.subresource != "status" or _result(call.old or {}) is not None:
        return ""
    number = _result(call.object)
    return "" if number is None else f"status.allocation.devices.results[{number}].adminAccess"


def _result(claim: dict[str, object]) -> int | None:
    status = claim.get("status") or {}
    allocated = (status.get("allocation") if isinstance(status, dict) else None) or {}
    results = (allocated.get("devices") or {}).get("results") or ()
    return next((number for number, each in enumerate(results) if each.get("adminAccess")), None)

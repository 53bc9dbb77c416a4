"""CertificateSigningRequests: who may approve, who may sign, and what nobody asks for.

As the admission plugins of kube-apiserver (CertificateApproval, CertificateSigning and
CertificateSubjectRestriction) and the validation of updates keep them.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from walras.core.errors import BadRequest, Cause, Invalid
from walras.kube import policy
from walras.kube.access import certificates
from walras.kube.access.words import MASTERS, Attributes, Object
from walras.kube.context import Context
from walras.kube.registry import Resource

REQUESTS: Final = "certificatesigningrequests.certificates.k8s.io"
_KIND: Final = "CertificateSigningRequest"
_FINAL: Final = ("Approved", "Denied", "Failed")


def check(ctx: Context, resource: Resource, new: Object, old: Object | None, subresource: str) -> None:
    """Raises Forbidden or Invalid for a write of a request, given as it is to be stored."""
    if resource.key != REQUESTS:
        return
    if old is None:
        _check_request(resource, new)
        return
    if subresource == "approval":
        _permit(ctx, resource, old, "approve")
    elif subresource == "status":
        _check_status(ctx, resource, new, old)
    _check_conditions(new, old)


def decoded(obj: Object) -> bytes:
    """The PEM of a request. Raises BadRequest."""
    try:
        return base64.b64decode(str(obj["spec"].get("request") or ""), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("spec.request is not base64") from None


def _check_request(resource: Resource, new: Object) -> None:
    name, spec = str(new["metadata"].get("name") or ""), new["spec"]
    try:
        request = certificates.request_of(decoded(new))
    except BadRequest as error:
        raise _invalid(name, "spec.request", f"Invalid value: {error.message}") from None
    if spec["signerName"] == certificates.SIGNER and MASTERS in certificates.groups_of(request):
        why = f"use of {certificates.SIGNER} signer with {MASTERS} group is not allowed"
        raise policy.forbidden(resource.key, name, why)


def _invalid(name: str, field: str, message: str, reason: str = "FieldValueInvalid") -> Invalid:
    return Invalid(
        f'{_KIND}.certificates.k8s.io "{name}" is invalid: {field}: {message}',
        causes=(Cause(reason, message, field),),
        details={"name": name, "group": "certificates.k8s.io", "kind": _KIND},
    )


def _permit(ctx: Context, resource: Resource, old: Object, verb: str) -> None:
    """Raises Forbidden unless the caller has the verb on the signer, or on all of its domain."""
    if ctx.access is None:
        return
    signer = str(old["spec"].get("signerName") or "")
    for name in (signer, f"{signer.partition('/')[0]}/*"):
        asked = Attributes(verb, "certificates.k8s.io", "signers", name=name)
        if ctx.access.decide(ctx.identity, ctx.cluster, asked).allowed:
            return
    why = f'user not permitted to {verb} requests with signerName "{signer}"'
    raise policy.forbidden(resource.key, str(old["metadata"]["name"]), why)


def _conditions(obj: Object, kind: str) -> list[dict[str, Any]]:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return [each for each in conditions if each.get("type") == kind]


def _check_status(ctx: Context, resource: Resource, new: Object, old: Object) -> None:
    """A certificate and a failure are the signer's to write, once."""
    before, after = ((each.get("status") or {}).get("certificate") for each in (old, new))
    if before != after or _conditions(new, "Failed") != _conditions(old, "Failed"):
        _permit(ctx, resource, old, "sign")
    if before and before != after:
        why = "Forbidden: updates may not modify existing certificate content"
        raise _invalid(str(old["metadata"]["name"]), "status.certificate", why, "FieldValueForbidden")


def _check_conditions(new: Object, old: Object) -> None:
    """No decision goes away, and none contradicts another."""
    name = str(old["metadata"]["name"])
    for kind in _FINAL:
        if _conditions(old, kind) and not _conditions(new, kind):
            why = f'Forbidden: updates may not remove a condition of type "{kind}"'
            raise _invalid(name, "status.conditions", why, "FieldValueForbidden")
    if _conditions(new, "Approved") and _conditions(new, "Denied"):
        why = "Invalid value: Approved and Denied conditions are mutually exclusive"
        raise _invalid(name, "status.conditions", why)

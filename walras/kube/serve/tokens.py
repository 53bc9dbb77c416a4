"""`serviceaccounts/NAME/token`: a token on request (kubernetes/pkg/registry/core/serviceaccount/storage)."""

from __future__ import annotations

from typing import Any, Final

from walras.core.clock import rfc3339
from walras.core.errors import BadRequest, Cause, Invalid
from walras.kube.access.accounts import LIFETIME_S, Accounts, Reference, bindable, node_of
from walras.kube.api import API
from walras.kube.objects import ACCOUNTS, conflict

Object = dict[str, Any]

KIND: Final = "TokenRequest"
API_VERSION: Final = "authentication.k8s.io/v1"
LIFETIME_S_MIN: Final = 600
LIFETIME_S_MAX: Final = 2**32
AUDIENCES_MAX: Final = 32
AUDIENCE_BYTES_MAX: Final = 256
BODY_BYTES_MAX: Final = 64 << 10


def request(api: API, accounts: Accounts, cluster: str, namespace: str, name: str, body: Object) -> Object:
    """The TokenRequest with its token. Raises BadRequest, Conflict, Invalid, NotFound."""
    _check_type(body)
    metadata, spec = _object(body, "metadata"), _object(body, "spec")
    for field, wanted in (("name", name), ("namespace", namespace)):
        if metadata.get(field) not in (None, "", wanted):
            why = f"must match the service account {field} if specified"
            raise _invalid(f"metadata.{field}", metadata[field], why, name)
    account = api.get(cluster, ACCOUNTS, namespace, name)
    uid = account["metadata"]["uid"]
    if metadata.get("uid") not in (None, "", uid):
        why = (
            f"the UID in the token request ({metadata['uid']}) does not match the UID of the service account "
            f"({uid})"
        )
        raise conflict("TokenRequest.authentication.k8s.io", name, why)
    audiences, lifetime_s = _audiences(spec) or (accounts.issuer(cluster),), _lifetime_s(spec)
    bound, node = _bound(api, cluster, namespace, name, _object(spec, "boundObjectRef"))
    now_ms = api.clock.now_ms()
    token = accounts.issue(
        cluster, account, audiences=audiences, lifetime_s=lifetime_s, bound=bound, node=node
    )
    return {
        "kind": KIND,
        "apiVersion": API_VERSION,
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "creationTimestamp": rfc3339(now_ms)},
        "spec": {
            "audiences": list(audiences),
            "expirationSeconds": lifetime_s,
            "boundObjectRef": spec.get("boundObjectRef"),
        },
        "status": {"token": token, "expirationTimestamp": rfc3339(now_ms + lifetime_s * 1000)},
    }


def _check_type(body: Object) -> None:
    kind, version = body.get("kind") or KIND, body.get("apiVersion") or API_VERSION
    if (kind, version) != (KIND, API_VERSION):
        raise BadRequest(
            f"the object provided is unrecognized: expected {KIND} of {API_VERSION}, got {str(kind)[:64]} of "
            f"{str(version)[:64]}"
        )


def _object(holder: Object, name: str) -> Object:
    value = holder.get(name)
    if value is not None and not isinstance(value, dict):
        raise BadRequest(f"{name}: Invalid value: must be an object")
    return value or {}


def _invalid(field: str, value: Any, why: str, name: str = "") -> Invalid:
    shown = f'"{value[:64]}"' if isinstance(value, str) else str(value)[:64]
    message = f"Invalid value: {shown}: {why}"
    return Invalid(
        f'TokenRequest.authentication.k8s.io "{name}" is invalid: {field}: {message}',
        causes=(Cause("FieldValueInvalid", message, field),),
        details={**({"name": name} if name else {}), "group": "authentication.k8s.io", "kind": KIND},
    )


def _audiences(spec: Object) -> tuple[str, ...]:
    given = spec.get("audiences") or []
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise BadRequest("spec.audiences: Invalid value: must be a list of strings")
    if len(given) > AUDIENCES_MAX or any(len(each) > AUDIENCE_BYTES_MAX for each in given):
        why = f"at most {AUDIENCES_MAX} audiences of {AUDIENCE_BYTES_MAX} characters"
        raise _invalid("spec.audiences", len(given), why)
    return tuple(given)


def _lifetime_s(spec: Object) -> int:
    given = spec.get("expirationSeconds")
    if given is None:
        return LIFETIME_S
    if type(given) is not int:
        raise BadRequest("spec.expirationSeconds: Invalid value: must be a whole number")
    if given < LIFETIME_S_MIN:
        raise _invalid("spec.expirationSeconds", given, "may not specify a duration less than 10 minutes")
    if given > LIFETIME_S_MAX:
        raise _invalid("spec.expirationSeconds", given, "may not specify a duration larger than 2^32 seconds")
    return given


def _bound(
    api: API, cluster: str, namespace: str, account: str, reference: Object
) -> tuple[Object | None, Reference | None]:
    """The object that the token is bound to, and the node of a pod. Raises BadRequest, Conflict, NotFound."""
    if not reference:
        return None, None
    kind, name = str(reference.get("kind") or ""), str(reference.get("name") or "")
    resource = bindable(kind) if reference.get("apiVersion") == "v1" else ""
    if not resource:
        version = str(reference.get("apiVersion") or "")[:64]
        version = version if "/" in version else f"/{version}"
        raise BadRequest(f"cannot bind token to object of type {version}, Kind={kind[:64]}")
    found = api.get(cluster, resource, "" if kind == "Node" else namespace, name)
    if kind == "Pod" and (found["spec"].get("serviceAccountName") or "default") != account:
        raise BadRequest(
            f'cannot bind token for serviceaccount "{account}" to pod running with different serviceaccount '
            "name."
        )
    uid = found["metadata"]["uid"]
    if reference.get("uid") not in (None, "", uid):
        why = (
            f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record. "
            "The object might have been deleted and then recreated"
        )
        raise conflict(kind, name, why)
    return found, node_of(api, cluster, found) if kind == "Pod" else None

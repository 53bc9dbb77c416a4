"""AdmissionReview (admission.k8s.io/v1 and v1beta1): what a webhook is asked, and what its answer means."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from walras.core.errors import Cause, Denied, WalrasError
from walras.kube.admission.call import Call
from walras.kube.admission.expressions import request_of, shown
from walras.kube.admission.http import CalloutFailed
from walras.kube.record import Object, parse
from walras.kube.registry import Resource

KNOWN: Final = ("v1", "v1beta1")
WARNING_CHARACTERS_MAX: Final = 4_096
# Statuses that say by their code what they are for, where a webhook gives no reason.
_FIELDS_OF_SERVER: Final = ("uid", "creationTimestamp", "resourceVersion", "generation", "selfLink")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A webhook's answer: `patch` are the operations of a JSON patch, empty for none."""

    allowed: bool
    patch: list[Any]
    warnings: tuple[str, ...]
    annotations: Mapping[str, str]
    status: Mapping[str, Any]


def asked(call: Call, version: Resource, review_version: str, uid: str, mutating: bool) -> bytes:
    """The review of a call in a version of its type, as JSON."""
    new = shown(call, version, call.new)
    if mutating and call.operation == "CREATE" and new is not None and "metadata" in new:
        new = {**new, "metadata": _unborn(call, new["metadata"])}
    request = {
        "uid": uid,
        **request_of(call, version, named=not mutating),
        "object": new,
        "oldObject": shown(call, version, call.old),
    }
    review = {
        "kind": "AdmissionReview",
        "apiVersion": f"admission.k8s.io/{review_version}",
        "request": request,
    }
    return msgspec.json.encode(review)


def _unborn(call: Call, metadata: Object) -> Object:
    """The metadata of an object as it is before the server gives it a name and an identity."""
    found = {name: value for name, value in metadata.items() if name not in _FIELDS_OF_SERVER}
    if found.get("generateName") and call.name == found["generateName"]:
        found.pop("name", None)
    return found


def answered(body: bytes, review_version: str, uid: str, *, mutating: bool) -> Verdict:
    """What the answer says. Raises CalloutFailed for one that is none."""
    try:
        review = parse(body)
    except ValueError as error:
        said = f"couldn't get version/kind; json parse error: {error}"
        raise CalloutFailed(f"failed to call webhook: {said}") from None
    try:
        return _verdict(review, review_version, uid, mutating)
    except CalloutFailed as error:
        raise CalloutFailed(f"received invalid webhook response: {error}") from None


def _verdict(review: Any, review_version: str, uid: str, mutating: bool) -> Verdict:
    response = review.get("response") if isinstance(review, dict) else None
    if not isinstance(response, dict):
        raise CalloutFailed("webhook response was absent")
    if review_version == "v1":
        _check(review, response, uid, mutating)
    patch = _patch(response) if mutating else []
    warnings = response.get("warnings") or ()
    notes = response.get("auditAnnotations")
    status = response.get("status") or {}
    return Verdict(
        response.get("allowed") is True,
        patch,
        tuple(str(each)[:WARNING_CHARACTERS_MAX] for each in warnings if isinstance(each, str)),
        {key: str(value) for key, value in notes.items()} if isinstance(notes, dict) else {},
        status if isinstance(status, dict) else {},
    )


def _check(review: Object, response: Object, uid: str, mutating: bool) -> None:
    if response.get("uid") != uid:
        raise CalloutFailed(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
    group, _, version = str(review.get("apiVersion", "")).rpartition("/")
    if (group, version, review.get("kind")) != ("admission.k8s.io", "v1", "AdmissionReview"):
        got = f"{group}/{version}, Kind={review.get('kind', '')}"
        wanted = "admission.k8s.io/v1, Kind=AdmissionReview"
        raise CalloutFailed(f"expected webhook response of {wanted}, got {got}")
    patch, kind = response.get("patch"), response.get("patchType")
    if not mutating:
        for name, value in (("patch", patch), ("patchType", kind)):
            if value:
                raise CalloutFailed(f"validating webhook may not return response.{name}")
        return
    if patch and kind is None:
        raise CalloutFailed("webhook returned response.patch but not response.patchType")
    if kind is not None and not patch:
        raise CalloutFailed("webhook returned response.patchType but not response.patch")
    if kind is not None and kind != "JSONPatch":
        raise CalloutFailed(f'webhook returned invalid response.patchType of "{kind}"')


def _patch(response: Object) -> list[Any]:
    given = response.get("patch")
    if not given:
        return []
    try:
        patch = parse(base64.b64decode(given, validate=True))
    except (ValueError, TypeError) as error:
        raise CalloutFailed(f"received undecodable patch in webhook response: {error}") from None
    if not isinstance(patch, list):
        raise CalloutFailed("received undecodable patch in webhook response: it is no list")
    return patch


def denial(name: str, status: Mapping[str, Any]) -> WalrasError:
    """The error by which a webhook refuses a write."""
    denied = f'admission webhook "{name}" denied the request'
    message, reason = status.get("message"), status.get("reason")
    if message:
        text = f"{denied}: {message}"
    elif reason:
        text = f"{denied}: {reason}"
    else:
        text = f"{denied} without explanation"
    code = status.get("code")
    code = code if isinstance(code, int) and 400 <= code <= 599 else 400
    details = status.get("details")
    details = dict(details) if isinstance(details, dict) else {}
    causes = tuple(
        Cause(str(each.get("reason", "")), str(each.get("message", "")), str(each.get("field", "")))
        for each in details.pop("causes", None) or ()
        if isinstance(each, dict)
    )
    return Denied(text, code, str(reason or ""), causes=causes, details=details)

"""ConversionReview (apiextensions.k8s.io/v1 and v1beta1): what a webhook is asked, and what it may answer.

It may change labels and annotations, and whatever is not metadata. Failures are in upstream's words.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from walras.core.errors import Unclassified, WalrasError
from walras.kube import bodies, fields
from walras.kube.golang import type_of
from walras.kube.patch import copied
from walras.kube.record import Object, parse
from walras.kube.registry import Resource
from walras.kube.validation.faults import Faults
from walras.kube.validation.metadata import check_annotations, check_labels

KNOWN: Final = ("v1", "v1beta1")
_GROUP: Final = "apiextensions.k8s.io"
_KIND: Final = "ConversionReview"
# (field of metadata, what upstream calls it)
_SAME: Final = (("name", "name"), ("namespace", "namespace"), ("uid", "UID"))


def asked(objects: list[Object], target: Resource, review_version: str, uid: str) -> bytes:
    """The review of objects that are to be converted, as JSON."""
    request = {"uid": uid, "desiredAPIVersion": target.api_version, "objects": objects}
    review = {"kind": _KIND, "apiVersion": f"{_GROUP}/{review_version}", "request": request}
    return msgspec.json.encode(review)


def about(obj: Object) -> str:
    """How every failure begins that concerns a conversion of the object."""
    return f"conversion webhook for {obj['apiVersion']}, Kind={obj['kind']}"


def answered(
    body: bytes, objects: list[Object], target: Resource, review_version: str, uid: str
) -> list[Object]:
    """The objects in the version `target`, pruned. Raises Unclassified for an answer that is none."""
    try:
        found = _objects(body, review_version, uid)
    except ValueError as error:
        raise Unclassified(f"{about(objects[0])} failed: {error}") from None
    if len(found) != len(objects):
        raise Unclassified(f"{about(objects[0])} returned {len(found)} objects, expected {len(objects)}")
    return [
        _checked(original, each, target, index)
        for index, (original, each) in enumerate(zip(objects, found, strict=True))
    ]


def _objects(body: bytes, review_version: str, uid: str) -> list[Any]:
    """The converted objects of an answer. Raises ValueError."""
    try:
        review = parse(body)
    except ValueError as error:
        raise ValueError(f"couldn't get version/kind; json parse error: {error}") from None
    review = review if isinstance(review, dict) else {}
    response = review.get("response")
    if review_version == "v1":
        wanted, kind = f"{_GROUP}/v1, Kind={_KIND}", review.get("kind") or ""
        version = str(review.get("apiVersion") or "")
        got = f"{version if '/' in version else f'/{version}'}, Kind={kind}"
        if got != wanted:
            raise ValueError(f"expected webhook response of {wanted}, got {got}")
    if not isinstance(response, dict):
        raise ValueError("no response provided")
    if review_version == "v1" and response.get("uid") != uid:
        raise ValueError(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    result = response.get("result")
    result = result if isinstance(result, dict) else {}
    if result.get("status") != "Success":
        said = f"response.result.status was '{result.get('status') or ''}', not 'Success'"
        raise ValueError(str(result.get("message") or said))
    found = response.get("convertedObjects") or []
    return found if isinstance(found, list) else []


def _checked(original: Object, found: Any, target: Resource, index: int) -> Object:
    """A converted object as it counts. Raises Unclassified."""
    one = f"{about(original)} returned invalid object"
    if not isinstance(found, dict):
        # So does Go's decoder.
        said = "unexpected end of JSON input"
        if found is not None:
            said = f"json: cannot unmarshal {_json(found)} into Go value of type map[string]interface {{}}"
        raise Unclassified(said)
    at = f"{one} at index {index}"
    version, kind = str(found.get("apiVersion") or ""), str(found.get("kind") or "")
    if version != target.api_version:
        raise Unclassified(f"{at}: invalid groupVersion (expected {target.api_version}, received {version})")
    if kind != original["kind"]:
        raise Unclassified(f"{at}: invalid kind (expected {original['kind']}, received {kind})")
    given = found.get("metadata")
    for name, called in _SAME:
        mine = str(original["metadata"].get(name) or "")
        theirs = given.get(name) if isinstance(given, dict) else ""
        theirs = theirs if isinstance(theirs, str) else ""
        if mine != theirs:
            raise Unclassified(f"{one}: must have the same {called}: {mine} != {theirs}")
    try:
        whole = {**found, "metadata": _metadata(original["metadata"], given)}
    except ValueError as error:
        raise Unclassified(f"{about(original)} returned invalid metadata: {error}") from None
    try:
        return fields.prune(target.schema, bodies.checked(whole))
    except WalrasError as error:
        raise Unclassified(f"{one}: {error.message}") from None


def _metadata(original: Object, given: Any) -> Object:
    """The original's metadata with the labels and annotations that were given. Raises ValueError."""
    if not isinstance(given, dict):
        raise ValueError("missing metadata in converted object")
    restored: Object = copied(original)
    for name in ("labels", "annotations"):
        value = given.get(name)
        if value is None:
            restored.pop(name, None)
            continue
        if not isinstance(value, dict):
            raise ValueError(f"invalid metadata.{name} of type {type_of(value)} in converted object")
        for key, text in value.items():
            if not isinstance(text, str):
                kind = type_of(text)
                raise ValueError(
                    f"metadata.{name}[{key}] must be a string, but is {kind} in converted object"
                )
        if value != (original.get(name) or {}):
            _check(name, value)
        restored[name] = value
    return restored


def _check(name: str, value: Object) -> None:
    """Raises ValueError for labels or annotations that no object may have."""
    faults = Faults()
    if name == "labels":
        check_labels(faults, "metadata.labels", value)
    else:
        check_annotations(faults, "metadata.annotation", value)
    said = [f"{fault.field}: {fault.message}" for fault in faults]
    if said:
        raise ValueError(said[0] if len(said) == 1 else f"[{', '.join(said)}]")


def _json(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "array"

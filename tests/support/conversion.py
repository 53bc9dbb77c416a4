"""A type whose versions say the same in other words, and a webhook that converts as Kubernetes' example.

In v1 an object has `hostPort: "localhost:8080"`, in v2 `host: localhost` and `port: "8080"`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

Object = dict[str, Any]
GROUP = "stable.example.com"
KEY = f"multis.{GROUP}"
V1, V2 = f"{GROUP}/v1/multis", f"{GROUP}/v2/multis"
TEXT: Object = {"type": "string"}


def convert(request: Object) -> Object:
    """The response to a request of a ConversionReview."""
    wanted = request["desiredAPIVersion"]
    found = [converted(each, wanted) for each in request["objects"]]
    return {"result": {"status": "Success"}, "convertedObjects": found}


def converted(obj: Object, wanted: str) -> Object:
    """The object in the version, which is not the one that it is in."""
    new = {**deepcopy(obj), "apiVersion": wanted}
    if wanted.endswith("/v1"):
        host, port = new.pop("host", ""), new.pop("port", "")
        return {**new, "hostPort": f"{host}:{port}"}
    host, _, port = new.pop("hostPort", "").partition(":")
    return {**new, "host": host, "port": port}


def spoilt(change: Callable[[Object], Any]) -> Callable[[Object], Object]:
    """Converts, and then does something to what comes out."""

    def answer(request: Object) -> Object:
        response = convert(request)
        for each in response["convertedObjects"]:
            change(each)
        return response

    return answer


def version(name: str, fields: Object, storage: str, **more: Any) -> Object:
    status: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {**fields, "extra": TEXT, "status": status}}
    return {
        "name": name,
        "served": True,
        "storage": name == storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        **more,
    }


def definition(client: Object, storage: str = "v1", **conversion: Any) -> Object:
    """The CustomResourceDefinition; `client` is the webhook's clientConfig."""
    webhook = {"conversionReviewVersions": ["v1", "v1beta1"], "clientConfig": client, **conversion}
    first = version("v1", {"hostPort": TEXT}, storage)
    second = version(
        "v2",
        {"host": TEXT, "port": {**TEXT, "maxLength": 5}},
        storage,
        selectableFields=[{"jsonPath": ".host"}],
    )
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": KEY},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": "multis", "singular": "multi", "kind": "Multi", "listKind": "MultiList"},
            "versions": [first, second],
            "conversion": {"strategy": "Webhook", "webhook": webhook},
        },
    }


def multi(version: str, name: str, **fields: Any) -> Object:
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": "Multi",
        "metadata": {"name": name, "namespace": "default"},
        **fields,
    }

"""CEL of admission: conditions, validations, variables, over the write as a request (KEP-3488, KEP-3716)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from walras.kube import cel, scaling, versions
from walras.kube.admission.call import Call
from walras.kube.cel.opaque import Authorizer
from walras.kube.cel.types import DYN, Field, Type, list_of, map_of, read
from walras.kube.context import Identity
from walras.kube.objects import NAMESPACES
from walras.kube.record import Object
from walras.kube.registry import Resource

# As upstream: what the conditions of one webhook or policy may cost, and all expressions of one policy.
CONDITIONS_COST_MAX: Final = 2_500_000
POLICY_COST_MAX: Final = 10_000_000
# By the clock, for everything that one write has to be evaluated for.
WRITE_MAX_S: Final = 0.5
OUT_OF_BUDGET: Final = (
    "validation failed due to running out of cost budget, no further validation rules will be run"
)
_CHECK: Final = Type("kubernetes.authorization.ResourceCheck")
AUTHORIZER: Final = Type(
    "kubernetes.authorization.Authorizer", (), {"requestResource": Field(_CHECK, "requestResource")}
)


def _struct(name: str, fields: Mapping[str, Type]) -> Type:
    return Type(name, (), {field: Field(kind, field) for field, kind in fields.items()})


_S: Final = read("string")
_GVK: Final = _struct("kubernetes.GroupVersionKind", dict.fromkeys(("group", "version", "kind"), _S))
_GVR: Final = _struct("kubernetes.GroupVersionResource", dict.fromkeys(("group", "version", "resource"), _S))
_USER: Final = _struct(
    "kubernetes.UserInfo",
    {"username": _S, "uid": _S, "groups": list_of(_S), "extra": map_of(_S, list_of(_S))},
)
REQUEST: Final = _struct(
    "kubernetes.AdmissionRequest",
    {
        "kind": _GVK, "resource": _GVR, "subResource": _S, "requestKind": _GVK, "requestResource": _GVR,
        "requestSubResource": _S, "name": _S, "namespace": _S, "operation": _S, "userInfo": _USER,
        "dryRun": read("bool"), "options": DYN,
    },
)  # fmt: skip
NAMESPACE: Final = _struct(
    "kubernetes.Namespace",
    {
        "metadata": _struct(
            "kubernetes.NamespaceMetadata",
            {
                **dict.fromkeys(("name", "generateName", "namespace", "uid", "resourceVersion"), _S),
                "labels": map_of(_S, _S), "annotations": map_of(_S, _S), "generation": read("int"),
                "creationTimestamp": read("timestamp"), "deletionTimestamp": read("timestamp"),
                "deletionGracePeriodSeconds": read("int"), "finalizers": list_of(_S),
            },
        ),
        "spec": _struct("kubernetes.NamespaceSpec", {"finalizers": list_of(_S)}),
        "status": _struct("kubernetes.NamespaceStatus", {"phase": _S}),
    },
)  # fmt: skip
BASE: Final[Mapping[str, Type]] = {
    "object": DYN,
    "oldObject": DYN,
    "request": REQUEST,
    "authorizer": AUTHORIZER,
}
POLICY: Final[Mapping[str, Type]] = {**BASE, "namespaceObject": NAMESPACE, "params": DYN, "variables": DYN}


@lru_cache(maxsize=4096)
def condition(text: str) -> cel.Expression:
    """A matchCondition of a webhook. Raises SourceError."""
    return cel.compile_typed(text, BASE)


@lru_cache(maxsize=8192)
def of_policy(text: str, structs: tuple[tuple[str, Type], ...] = ()) -> cel.Expression:
    """An expression of a policy. Raises SourceError."""
    return cel.compile_typed(text, POLICY, dict(structs))


def request_of(call: Call, version: Resource, *, named: bool = True) -> Object:
    """The admission request as expressions see it, in a version of the type that was asked for.

    `named`: whether a name that the server makes up is there already.
    """
    asked, identity = call.resource, call.ctx.identity
    kind = {"group": version.group, "version": version.version, "kind": kind_of(call, version)}
    resource = {"group": version.group, "version": version.version, "resource": version.plural}
    found: Object = {
        "kind": _special(call) or kind,
        "resource": resource,
        "requestKind": _special(call) or {**kind, "version": asked.version, "group": asked.group},
        "requestResource": {"group": asked.group, "version": asked.version, "resource": asked.plural},
        "operation": call.operation,
        "userInfo": user_info(identity),
        "dryRun": call.ctx.dry_run,
        "options": options_of(call),
    }
    name = name_of(call) or (named and str((call.new or {}).get("metadata", {}).get("name") or ""))
    if name:
        found["name"] = name
    if call.namespace:
        found["namespace"] = call.namespace
    elif call.key == NAMESPACES:
        found["namespace"] = call.name
    if call.subresource:
        found["subResource"] = found["requestSubResource"] = call.subresource
    return found


# Subresources whose bodies are of another kind.
_KINDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "scale": ("autoscaling", "v1", "Scale"),
    "eviction": ("policy", "v1", "Eviction"),
    "binding": ("", "v1", "Binding"),
    "exec": ("", "v1", "PodExecOptions"),
    "attach": ("", "v1", "PodAttachOptions"),
    "portforward": ("", "v1", "PodPortForwardOptions"),
    "proxy": ("", "v1", "PodProxyOptions"),
}


def kind_of(call: Call, version: Resource) -> str:
    return _KINDS[call.subresource][2] if call.subresource in _KINDS else version.kind


def _special(call: Call) -> Object | None:
    if call.subresource not in _KINDS:
        return None
    group, version, kind = _KINDS[call.subresource]
    return {"group": group, "version": version, "kind": kind}


def name_of(call: Call) -> str:
    """The name of the request: "" where the server still has to make one up."""
    metadata = (call.new or {}).get("metadata") or {}
    made = metadata.get("generateName") and call.name == metadata["generateName"]
    return "" if made else call.name


def user_info(identity: Identity) -> Object:
    found: Object = {"username": identity.user, "groups": list(identity.groups)}
    if identity.uid:
        found["uid"] = identity.uid
    if identity.extra:
        found["extra"] = {name: list(values) for name, values in identity.extra}
    return found


def options_of(call: Call) -> Object:
    """The request's options, which are an object of their own kind."""
    kinds = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}
    if call.operation == "CONNECT":
        return dict(call.options)
    found: Object = {"kind": kinds[call.operation], "apiVersion": "meta.k8s.io/v1", **call.options}
    if call.ctx.field_manager and call.operation != "DELETE":
        found["fieldManager"] = call.ctx.field_manager
    if call.ctx.dry_run:
        found["dryRun"] = ["All"]
    return found


def shown(call: Call, version: Resource, obj: Object | None) -> Object | None:
    """An object of the call as outsiders see it: in the version, or as its subresource's kind."""
    if obj is None or call.operation == "CONNECT" or call.subresource in ("eviction", "binding"):
        return obj
    if call.subresource == "scale":
        return scaling.view(version.storage, obj)
    return versions.served(version, obj, call.ctx.conversions)


class Evaluator:
    """Evaluates expressions over one call, within a budget of cost that they share."""

    def __init__(self, call: Call, version: Resource, budget: int) -> None:
        self.left = budget
        self.variables: dict[str, Any] = {
            "object": shown(call, version, call.new),
            "oldObject": shown(call, version, call.old),
            "request": request_of(call, version),
            "authorizer": _authorizer(call),
        }
        self._call = call

    def run(self, expression: cel.Expression) -> Any:
        """Raises CelError; CostExceeded once the budget is used up."""
        if self.left < 0:
            raise cel.CostExceeded(OUT_OF_BUDGET)
        if self._call.deadline is None:
            self._call.deadline = time.perf_counter() + WRITE_MAX_S
        try:
            value, cost = expression.program.run(self.variables, deadline=self._call.deadline)
        except cel.CelError as error:
            self.left -= getattr(error, "cost", 0)
            raise
        self.left -= cost
        if self.left < 0:
            raise cel.CostExceeded(OUT_OF_BUDGET)
        return value


def _authorizer(call: Call) -> Authorizer:
    ask = _authorize(call)
    attributes = {
        "group": call.resource.group, "resource": call.resource.plural, "subresource": call.subresource,
        "namespace": call.namespace, "name": name_of(call),
    }  # fmt: skip
    return Authorizer(ask, request=Authorizer(ask, attributes=tuple(attributes.items())))


def _authorize(call: Call) -> Callable[..., tuple[bool, str]]:
    def ask(user: tuple[str, str] | None, attributes: Mapping[str, str], verb: str) -> tuple[bool, str]:
        identity = call.ctx.identity
        if user is not None:
            namespace, name = user
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
            identity = Identity(f"system:serviceaccount:{namespace}:{name}", groups, identity.cluster)
        return call.may(identity, attributes, verb)

    return ask


def namespace_of(call: Call) -> Object | None:
    """The namespace that the write is in; None for what is in none."""
    if call.key == NAMESPACES:
        return None
    return call.tx.peek(call.ctx.cluster, NAMESPACES, "", call.namespace) if call.namespace else None

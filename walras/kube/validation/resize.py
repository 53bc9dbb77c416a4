"""Containers of a pod that is there already and that are to have other CPU and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.preparing import qos_class
from walras.kube.validation import pods
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

_KINDS: Final = ("requests", "limits")
_RESIZED: Final = ("cpu", "memory")
_ONLY: Final = "only cpu and memory resources are mutable"
_MIRROR: Final = "kubernetes.io/config.mirror"


def resized(faults: Faults, obj: Object, old: Object | None) -> None:
    """A pod as a write of its subresource `resize` would leave it: no other part of it is another."""
    pods.whole(faults, obj)
    before = old or {}
    spec, was = obj.get("spec") or {}, before.get("spec") or {}
    if _MIRROR in ((before.get("metadata") or {}).get("annotations") or {}):
        faults.forbidden("", "static pods cannot be resized")
        return
    if (was.get("os") or {}).get("name") == "windows":
        faults.forbidden("", "windows pods cannot be resized")
        return
    status = before.get("status") or {}
    if (status.get("qosClass") or qos_class(was)) != qos_class(spec):
        shown = (obj.get("status") or {}).get("qosClass", "")
        faults.invalid("spec", shown, "Pod QOS Class may not change as a result of resizing")
    running = (
        each for each in status.get("containerStatuses") or () if "running" in (each.get("state") or {})
    )
    if (first := next(running, None)) is not None and first.get("resources") is None:
        faults.forbidden("spec", "Pod running on node without support for resize")
    for field in ("initContainers", "containers"):
        for index, pair in enumerate(zip(spec.get(field) or (), was.get(field) or (), strict=False)):
            _container(faults, f"spec.{field}[{index}]", *pair, init=field == "initContainers")


def _container(faults: Faults, path: str, new: Object, old: Object, *, init: bool) -> None:
    wanted, had = new.get("resources") or {}, old.get("resources") or {}
    for kind in _KINDS:
        if set(had.get(kind) or ()) - set(wanted.get(kind) or ()):
            faults.forbidden(f"{path}.resources.{kind}", f"resource {kind} cannot be removed")
    if _others(wanted) != _others(had):
        if init:
            said = "only cpu and memory resources for init or sidecar containers are mutable"
            faults.forbidden(path, said)
        else:
            faults.forbidden("spec", _ONLY)
    restarts = any(each.get("restartPolicy") == "RestartContainer" for each in new.get("resizePolicy") or ())
    if init and restarts and wanted != had and new.get("restartPolicy") != "Always":
        said = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
        faults.forbidden(path, said)


def _others(resources: Object) -> dict[str, Object]:
    """What is not to be changed; claims go with what is not CPU or memory, and an update leaves them."""
    return {
        kind: {name: each for name, each in (resources.get(kind) or {}).items() if name not in _RESIZED}
        for kind in _KINDS
    }

"""What a container may be told of its own pod: fields of it, and amounts of its resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.core.quantity import canonical, parse_milli
from walras.kube.validation import names
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

IN_VARIABLES: Final = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
IN_FILES: Final = (
    "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
)  # fmt: skip
_KNOWN: Final = (
    *IN_VARIABLES, *IN_FILES, "spec.restartPolicy", "spec.schedulerName", "status.phase", "spec.host",
)  # fmt: skip
_RESOURCES: Final = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage",
    "requests.memory",
)  # fmt: skip
_HUGE: Final = ("requests.hugepages-", "limits.hugepages-")
_BYTES: Final = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_KINDS: Final = {"cpu": "cpu", "memory": "memory", "ephemeral-storage": "local ephemeral storage"}


def field(faults: Faults, path: str, reference: Object, supported: tuple[str, ...]) -> None:
    """A reference to a field of the pod, in an environment or in a file."""
    given = reference.get("fieldPath", "")
    if not given:
        faults.required(f"{path}.fieldPath")
        return
    version = reference.get("apiVersion", "v1")
    if version != "v1":
        detail = f"error converting fieldPath: unsupported pod version: {version}"
        faults.invalid(f"{path}.fieldPath", given, detail)
        return
    whole, bracket, subscript = given.partition("['")
    if bracket and subscript.endswith("']"):
        key = subscript[:-2]
        if whole == "metadata.labels":
            faults.each(path, key, names.qualified_name(key))
        elif whole == "metadata.annotations":
            faults.each(path, key.lower(), names.qualified_name(key.lower()))
        else:
            detail = f"error converting fieldPath: field label does not support subscript: {given}"
            faults.invalid(f"{path}.fieldPath", given, detail)
    elif given not in _KNOWN:
        detail = f"error converting fieldPath: field label not supported: {given}"
        faults.invalid(f"{path}.fieldPath", given, detail)
    elif given not in supported:
        faults.not_supported(f"{path}.fieldPath", given, supported)


def resource(faults: Faults, path: str, reference: Object, *, in_file: bool) -> None:
    """A reference to an amount of a container's resources."""
    name, divisor = reference.get("resource", ""), reference.get("divisor")
    if in_file and not reference.get("containerName"):
        faults.required(f"{path}.containerName")
    elif not name:
        faults.required(f"{path}.resource")
    elif name not in _RESOURCES and not name.startswith(_HUGE):
        faults.not_supported(f"{path}.resource", name, _RESOURCES)
    if divisor is None or not parse_milli(divisor):
        return
    kind = "hugepages" if name.startswith(_HUGE) else _KINDS.get(name.partition(".")[2], "")
    supported = ("1m", "1") if kind == "cpu" else _BYTES
    if kind and canonical(str(divisor)) not in supported:
        shown = "1m and 1" if kind == "cpu" else ", ".join(_BYTES)
        detail = f"only divisor's values {shown} are supported with the {kind} resource"
        faults.invalid(f"{path}.divisor", name, detail)

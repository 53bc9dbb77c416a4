"""What a container's securityContext asks for, with its pod's behind it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from walras.runtimes.base import Security

Object = Mapping[str, Any]


def security_of(pod: Object, container: Object) -> Security:
    """The container's own words go before the pod's."""
    pods = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}

    def first(name: str) -> Any:
        return own[name] if own.get(name) is not None else pods.get(name)

    capabilities = own.get("capabilities") or {}
    groups = [*(pods.get("supplementalGroups") or ())]
    if pods.get("fsGroup") is not None:
        groups.append(pods["fsGroup"])
    return Security(
        user=_number(first("runAsUser")),
        group=_number(first("runAsGroup")),
        groups=tuple(dict.fromkeys(int(each) for each in groups)),
        added=_names(capabilities.get("add")),
        dropped=_names(capabilities.get("drop")),
        read_only_root=bool(own.get("readOnlyRootFilesystem")),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        non_root=bool(first("runAsNonRoot")),
    )


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _names(values: Any) -> tuple[str, ...]:
    return tuple(str(each).upper().removeprefix("CAP_") for each in values or ())

"""What a container's securityContext asks for, with its pod's behind it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.runtimes.base import Security

Object = Mapping[str, Any]
# What Docker gives, without making device files and raw packets.
CAPABILITIES: Final = (
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP",
    "SETUID", "SYS_CHROOT",
)  # fmt: skip
# What a pod may have beside: it reaches no further than its own namespaces.
MORE_CAPABILITIES: Final = ("AUDIT_WRITE", "NET_RAW", "SYS_PTRACE")


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


def capabilities(security: Security) -> list[str]:
    """What the container may do, of what any container may."""
    everything = {*CAPABILITIES, *MORE_CAPABILITIES}
    found = set() if "ALL" in security.dropped else {*CAPABILITIES} - {*security.dropped}
    added = everything if "ALL" in security.added else everything & {*security.added}
    return sorted(found | added)


def refused(security: Security) -> list[str]:
    """Capabilities that the container asks for and does not get."""
    return sorted({*security.added} - {*CAPABILITIES, *MORE_CAPABILITIES, "ALL"})

"""The Pod Security Standards: what a pod must not ask for to be baseline, and what to be restricted.

Checks and words are those of k8s.io/pod-security-admission 0.36.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Violation:
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


class Subject:
    """A pod, or the template of pods, as checks look at it."""

    def __init__(self, pod: Fields) -> None:
        self.annotations: Fields = (pod.get("metadata") or {}).get("annotations") or {}
        self.spec: Fields = pod.get("spec") or {}
        self.security: Fields = self.spec.get("securityContext") or {}
        self.is_of_windows = (self.spec.get("os") or {}).get("name") == "windows"
        # A pod with user namespaces may look more like root than others.
        self.has_own_users = self.spec.get("hostUsers") is False
        self.volumes: list[Fields] = self.spec.get("volumes") or []

    def containers(self) -> Iterator[tuple[str, Fields, Fields]]:
        """Each container's name, itself and its securityContext."""
        for field in ("initContainers", "containers", "ephemeralContainers"):
            for container in self.spec.get(field) or ():
                yield container.get("name", ""), container, container.get("securityContext") or {}

    def setters(self, is_bad: Callable[[Fields], bool]) -> list[str]:
        """Who has a securityContext that is bad: the pod, its containers, both."""
        found = ["pod"] if is_bad(self.security) else []
        bad = [name for name, _, security in self.containers() if is_bad(security)]
        return [*found, _containers(bad)] if bad else found


Check = Callable[[Subject], Violation | None]


def _quoted(items: Iterable[str]) -> str:
    return '"' + '", "'.join(items) + '"'


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _containers(names: list[str]) -> str:
    return f"{_plural('container', len(names))} {_quoted(names)}"


def _use(count: int) -> str:
    return "uses" if count == 1 else "use"


def allow_privilege_escalation(pod: Subject) -> Violation | None:
    bad = [
        name
        for name, _, security in pod.containers()
        if security.get("allowPrivilegeEscalation") is not False
    ]
    if not bad:
        return None
    detail = f"{_containers(bad)} must set securityContext.allowPrivilegeEscalation=false"
    return Violation("allowPrivilegeEscalation != false", detail)


_APP_ARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"


def app_armor(pod: Subject) -> Violation | None:
    values: set[str] = set()

    def is_bad(security: Fields) -> bool:
        profile = security.get("appArmorProfile")
        if profile is None or profile.get("type") in ("RuntimeDefault", "Localhost"):
            return False
        values.add(profile.get("type", ""))
        return True

    setters = pod.setters(is_bad)
    annotated = sorted(
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in pod.annotations.items()
        if key.startswith(_APP_ARMOR)
        and value not in ("", "runtime/default")
        and not value.startswith("localhost/")
    )
    if annotated:
        setters.append(_plural("annotation", len(annotated)))
    if not setters:
        return None
    shown = [*sorted(values), *annotated]
    detail = f"{' and '.join(setters)} must not set AppArmor profile type to {_quoted(shown)}"
    return Violation(_plural("forbidden AppArmor profile", len(shown)), detail)


_CAPABILITIES: Final = frozenset((
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
))  # fmt: skip


def _adding(pod: Subject, allowed: frozenset[str]) -> str:
    """Says of the containers that they add other capabilities than these; "" where none does."""
    names: list[str] = []
    others: set[str] = set()
    for name, _, security in pod.containers():
        added = set((security.get("capabilities") or {}).get("add") or ()) - allowed
        if added:
            names.append(name)
            others |= added
    if not names:
        return ""
    return (
        f"{_containers(names)} must not include {_quoted(sorted(others))} in securityContext.capabilities.add"
    )


def capabilities_baseline(pod: Subject) -> Violation | None:
    detail = _adding(pod, _CAPABILITIES)
    return Violation("non-default capabilities", detail) if detail else None


def capabilities_restricted(pod: Subject) -> Violation | None:
    kept = [
        name
        for name, _, security in pod.containers()
        if "ALL" not in ((security.get("capabilities") or {}).get("drop") or ())
    ]
    said = [f'{_containers(kept)} must set securityContext.capabilities.drop=["ALL"]'] if kept else []
    said += filter(None, (_adding(pod, frozenset(("NET_BIND_SERVICE",))),))
    return Violation("unrestricted capabilities", "; ".join(said)) if said else None


def host_namespaces(pod: Subject) -> Violation | None:
    shared = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(name)]
    return Violation("host namespaces", ", ".join(shared)) if shared else None


def host_path_volumes(pod: Subject) -> Violation | None:
    bad = [volume["name"] for volume in pod.volumes if volume.get("hostPath") is not None]
    return Violation("hostPath volumes", f"{_plural('volume', len(bad))} {_quoted(bad)}") if bad else None


def host_ports(pod: Subject) -> Violation | None:
    names: list[str] = []
    ports: set[str] = set()
    for name, container, _ in pod.containers():
        taken = {str(port["hostPort"]) for port in container.get("ports") or () if port.get("hostPort")}
        if taken:
            names.append(name)
            ports |= taken
    if not names:
        return None
    what = f"{_plural('hostPort', len(ports))} {', '.join(sorted(ports))}"
    return Violation("hostPort", f"{_containers(names)} {_use(len(names))} {what}")


def host_probes(pod: Subject) -> Violation | None:
    names: set[str] = set()
    hosts: set[str] = set()
    for name, container, _ in pod.containers():
        lifecycle = container.get("lifecycle") or {}
        probes = [container.get(each) for each in ("livenessProbe", "readinessProbe", "startupProbe")]
        for handler in (*probes, lifecycle.get("postStart"), lifecycle.get("preStop")):
            for way in ("httpGet", "tcpSocket"):
                host = ((handler or {}).get(way) or {}).get("host")
                if host:
                    names.add(name)
                    hosts.add(host)
    if not names:
        return None
    what = f"{_plural('probe or lifecycle host', len(hosts))} {_quoted(sorted(hosts))}"
    return Violation("probe or lifecycle host", f"{_containers(sorted(names))} {_use(len(names))} {what}")


def privileged(pod: Subject) -> Violation | None:
    bad = [name for name, _, security in pod.containers() if security.get("privileged")]
    if not bad:
        return None
    return Violation("privileged", f"{_containers(bad)} must not set securityContext.privileged=true")


def proc_mount(pod: Subject) -> Violation | None:
    found = {name: security.get("procMount") for name, _, security in pod.containers()}
    bad = {name: kind for name, kind in found.items() if kind not in (None, "Default")}
    if not bad:
        return None
    kinds = _quoted(sorted({str(kind) for kind in bad.values()}))
    return Violation(
        "procMount", f"{_containers(list(bad))} must not set securityContext.procMount to {kinds}"
    )


_VOLUMES: Final = (
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
    "secret",
)  # fmt: skip
_OTHER_VOLUMES: Final = (
    "hostPath", "gcePersistentDisk", "awsElasticBlockStore", "gitRepo", "nfs", "iscsi", "glusterfs", "rbd",
    "flexVolume", "cinder", "cephfs", "flocker", "fc", "azureFile", "vsphereVolume", "quobyte", "azureDisk",
    "photonPersistentDisk", "portworxVolume", "scaleIO", "storageos",
)  # fmt: skip


def restricted_volumes(pod: Subject) -> Violation | None:
    names: list[str] = []
    kinds: set[str] = set()
    for volume in pod.volumes:
        if all(volume.get(kind) is None for kind in _VOLUMES):
            names.append(volume["name"])
            kinds.add(next((kind for kind in _OTHER_VOLUMES if volume.get(kind) is not None), "unknown"))
    if not names:
        return None
    volumes = f"{_plural('volume', len(names))} {_quoted(names)}"
    what = f"{_plural('restricted volume type', len(kinds))} {_quoted(sorted(kinds))}"
    return Violation("restricted volume types", f"{volumes} {_use(len(names))} {what}")


def run_as_non_root(pod: Subject) -> Violation | None:
    reason = "runAsNonRoot != true"
    setters = pod.setters(lambda security: security.get("runAsNonRoot") is False)
    if setters:
        detail = f"{' and '.join(setters)} must not set securityContext.runAsNonRoot=false"
        return Violation(reason, detail)
    if pod.security.get("runAsNonRoot"):
        return None
    bad = [name for name, _, security in pod.containers() if security.get("runAsNonRoot") is None]
    if not bad:
        return None
    return Violation(reason, f"pod or {_containers(bad)} must set securityContext.runAsNonRoot=true")


def run_as_user(pod: Subject) -> Violation | None:
    setters = pod.setters(lambda security: security.get("runAsUser") == 0)
    if not setters:
        return None
    return Violation("runAsUser=0", f"{' and '.join(setters)} must not set runAsUser=0")


_SELINUX: Final = ("", "container_t", "container_init_t", "container_kvm_t")


def selinux(pod: Subject, allowed: tuple[str, ...] = _SELINUX) -> Violation | None:
    types: set[str] = set()
    others: set[str] = set()

    def is_bad(security: Fields) -> bool:
        options = security.get("seLinuxOptions") or {}
        bad = {part for part in ("user", "role") if options.get(part)}
        others.update(bad)
        if options.get("type", "") in allowed:
            return bool(bad)
        types.add(options["type"])
        return True

    setters = pod.setters(is_bad)
    if not setters:
        return None
    said = [f"{_plural('type', len(types))} {_quoted(sorted(types))}"] if types else []
    said += [f"{part} may not be set" for part in ("user", "role") if part in others]
    detail = f"{' and '.join(setters)} set forbidden securityContext.seLinuxOptions: {'; '.join(said)}"
    return Violation("seLinuxOptions", detail)


def selinux_1_31(pod: Subject) -> Violation | None:
    return selinux(pod, (*_SELINUX, "container_engine_t"))

"""Security contexts of pods and containers, and what goes with an operating system."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from walras.kube.validation.faults import Faults, Verbatim, go

Object = Mapping[str, Any]

_ID_MAX: Final = 2**31 - 1
_PROFILES: Final = ("Localhost", "RuntimeDefault", "Unconfined")
_PROFILE_CHARACTERS_MAX: Final = 4095
_SYSCTL_CHARACTERS_MAX: Final = 253
_SYSCTL_FORMAT: Final = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL: Final = re.compile(_SYSCTL_FORMAT, re.ASCII)
_NAMESPACED: Final = {"net.": "hostNetwork", "kernel.msg": "hostIPC", "kernel.sem": "hostIPC",
                      "kernel.shm": "hostIPC", "fs.mqueue.": "hostIPC"}  # fmt: skip
_WINDOWS: Final = "windows options cannot be set for a linux pod"
_NOT_ON_WINDOWS: Final = "cannot be set for a windows pod"
# What Windows has none of: of a pod, of its security context, and of a container's.
_LINUX_OF_POD: Final = ("hostUsers", "hostPID", "hostIPC", "shareProcessNamespace")
_LINUX_OF_PODS: Final = (
    "appArmorProfile", "seLinuxOptions", "hostUsers", "hostPID", "hostIPC", "seccompProfile", "fsGroup",
    "fsGroupChangePolicy", "sysctls", "shareProcessNamespace", "runAsUser", "runAsGroup",
    "supplementalGroups", "supplementalGroupsPolicy", "seLinuxChangePolicy",
)  # fmt: skip
_LINUX_OF_CONTAINERS: Final = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem",
    "privileged", "allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup",
)  # fmt: skip


def of_pod(faults: Faults, path: str, spec: Object) -> None:
    """The security context of a pod, and what of its spec shares the host's namespaces."""
    context = spec.get("securityContext") or {}
    at = f"{path}.securityContext"
    for field in ("fsGroup", "runAsUser", "runAsGroup"):
        _id(faults, f"{at}.{field}", context.get(field))
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        _id(faults, f"{at}.supplementalGroups[{index}]", group)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        faults.invalid(f"{at}.shareProcessNamespace", True, detail)
    _sysctls(faults, f"{at}.sysctls", context.get("sysctls") or (), spec)
    _one_of(faults, f"{at}.fsGroupChangePolicy", context, ("Always", "OnRootMismatch"))
    _seccomp(faults, f"{at}.seccompProfile", context.get("seccompProfile"))
    _app_armour(faults, f"{at}.appArmorProfile", context.get("appArmorProfile"))
    _one_of(faults, f"{at}.supplementalGroupsPolicy", context, ("Merge", "Strict"))
    # MountOption belongs to a feature that is off.
    _one_of(faults, f"{at}.seLinuxChangePolicy", context, ("Recursive",))


def of_container(faults: Faults, path: str, context: Object, *, host_users: bool) -> None:
    for field in ("runAsUser", "runAsGroup"):
        _id(faults, f"{path}.{field}", context.get(field))
    _one_of(faults, f"{path}.procMount", context, ("Default", "Unmasked"))
    if host_users and context.get("procMount") == "Unmasked":
        detail = "`hostUsers` must be false to use `Unmasked`"
        faults.invalid(f"{path}.procMount", "Unmasked", detail)
    _seccomp(faults, f"{path}.seccompProfile", context.get("seccompProfile"))
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            faults.invalid(path, _shown(context), detail)
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            faults.invalid(path, _shown(context), detail)
    _app_armour(faults, f"{path}.appArmorProfile", context.get("appArmorProfile"))


def _shown(context: Object) -> Verbatim:
    capabilities = context.get("capabilities")
    profiles = (context.get(name) for name in ("seccompProfile", "appArmorProfile"))
    seccomp, armour = (
        each and {"Type": each.get("type", ""), "LocalhostProfile": each.get("localhostProfile")}
        for each in profiles
    )
    return go(
        Capabilities=capabilities and {"Add": capabilities.get("add"), "Drop": capabilities.get("drop")},
        Privileged=context.get("privileged"),
        SELinuxOptions=context.get("seLinuxOptions"),
        WindowsOptions=context.get("windowsOptions"),
        RunAsUser=context.get("runAsUser"),
        RunAsGroup=context.get("runAsGroup"),
        RunAsNonRoot=context.get("runAsNonRoot"),
        ReadOnlyRootFilesystem=context.get("readOnlyRootFilesystem"),
        AllowPrivilegeEscalation=context.get("allowPrivilegeEscalation"),
        ProcMount=context.get("procMount"),
        SeccompProfile=seccomp,
        AppArmorProfile=armour,
    )


def host_users(faults: Faults, path: str, spec: Object) -> None:
    """A pod with users of its own shares nothing of the host that they could reach."""
    if spec.get("hostUsers", True):
        return
    for field, name in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")):
        if spec.get(field):
            faults.forbidden(f"{path}.{name}", "when `hostUsers` is false")
    for where, container in _containers(path, spec):
        if container.get("volumeDevices"):
            faults.forbidden(f"{where}.volumeDevices", "when `hostUsers` is false")


def system(faults: Faults, path: str, spec: Object) -> None:
    """The operating system that a pod names, and what that has none of."""
    given = spec.get("os")
    if given is None:
        return
    name = given.get("name", "")
    if not name:
        faults.required(f"{path}.os.name")
    elif name == "linux":
        for where, each in ((path, spec), *_containers(path, spec)):
            if (each.get("securityContext") or {}).get("windowsOptions") is not None:
                faults.forbidden(f"{where}.securityContext.windowsOptions", _WINDOWS)
    elif name == "windows":
        _not_linux(faults, path, spec)
    else:
        faults.not_supported(f"{path}.os", name, ("linux", "windows"))


def _not_linux(faults: Faults, path: str, spec: Object) -> None:
    context = spec.get("securityContext") or {}
    for field in _LINUX_OF_PODS:
        whose, at = (spec, path) if field in _LINUX_OF_POD else (context, f"{path}.securityContext")
        if whose.get(field) is not None and (field not in ("hostPID", "hostIPC") or whose[field]):
            faults.forbidden(f"{at}.{field}", _NOT_ON_WINDOWS)
    for where, container in _containers(path, spec):
        for field in _LINUX_OF_CONTAINERS:
            if (container.get("securityContext") or {}).get(field) is not None:
                faults.forbidden(f"{where}.securityContext.{field}", _NOT_ON_WINDOWS)


def _containers(path: str, spec: Object) -> Iterator[tuple[str, Object]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            yield f"{path}.{kind}[{index}]", container


def _id(faults: Faults, path: str, value: int | None) -> None:
    if value is not None and not 0 <= value <= _ID_MAX:
        faults.invalid(path, value, f"must be between 0 and {_ID_MAX}, inclusive")


def _one_of(faults: Faults, path: str, context: Object, supported: tuple[str, ...]) -> None:
    value = context.get(path.rpartition(".")[2])
    if value is not None and value not in supported:
        faults.not_supported(path, value, supported)


def _sysctls(faults: Faults, path: str, given: Any, spec: Object) -> None:
    seen: set[str] = set()
    for index, sysctl in enumerate(given):
        at, name = f"{path}[{index}].name", sysctl.get("name", "")
        if not name:
            faults.required(at)
        elif len(name) > _SYSCTL_CHARACTERS_MAX or not _SYSCTL.fullmatch(name):
            said = f"must have at most {_SYSCTL_CHARACTERS_MAX} characters and match regex ^{_SYSCTL_FORMAT}$"
            faults.invalid(at, name, said)
        elif name in seen:
            faults.duplicate(at, name)
        host = next((field for start, field in _NAMESPACED.items() if name.startswith(start)), "")
        if host and spec.get(host):
            faults.invalid(at, name, f"may not be specified when '{host}' is true")
        seen.add(name)


def _seccomp(faults: Faults, path: str, profile: Object | None) -> None:
    if profile is None:
        return
    kind, local = profile.get("type", ""), profile.get("localhostProfile")
    if not kind:
        faults.required(f"{path}.type", "type is required when seccompProfile is set")
    elif kind not in _PROFILES:
        faults.not_supported(f"{path}.type", kind, _PROFILES)
    if kind != "Localhost":
        if local is not None:
            detail = "can only be set when seccomp type is Localhost"
            faults.invalid(f"{path}.localhostProfile", go(Type=kind, LocalhostProfile=local), detail)
    elif local is None:
        faults.required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost")
    else:
        if local.startswith("/"):
            faults.invalid(f"{path}.localhostProfile", local, "must be a relative path")
        if ".." in local.split("/"):
            faults.invalid(f"{path}.localhostProfile", local, "must not contain '..'")


def _app_armour(faults: Faults, path: str, profile: Object | None) -> None:
    if profile is None:
        return
    kind, local = profile.get("type", ""), profile.get("localhostProfile")
    at = f"{path}.localhostProfile"
    if kind == "Localhost":
        if not local or not local.strip():
            if local and local.strip() != local:
                faults.invalid(at, local, "must not be padded with whitespace")
            else:
                faults.required(at, "must be set when AppArmor type is Localhost")
        elif local.strip() != local:
            faults.invalid(at, local, "must not be padded with whitespace")
        if len(local or "") > _PROFILE_CHARACTERS_MAX:
            faults.too_long(at, _PROFILE_CHARACTERS_MAX)
    elif not kind:
        faults.required(f"{path}.type", "type is required when appArmorProfile is set")
    elif kind not in _PROFILES:
        faults.not_supported(f"{path}.type", kind, _PROFILES)
    elif local is not None:
        faults.invalid(at, local, "can only be set when AppArmor type is Localhost")

"""The profiles of Pod Security by version: which checks each of them makes, in the order of its words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Literal

from walras.kube.admission import podchecks as checks
from walras.kube.admission.podchecks import Check, Subject, Violation

Level = Literal["privileged", "baseline", "restricted"]
LEVELS: Final[tuple[Level, ...]] = ("privileged", "baseline", "restricted")
# The last of 1.x in which a profile changed; "latest" is that.
NEWEST: Final = 35

_SECCOMP: Final = ("RuntimeDefault", "Localhost")
_POD: Final = "seccomp.security.alpha.kubernetes.io/pod"
_CONTAINER: Final = "container.seccomp.security.alpha.kubernetes.io/"
_SYSCTLS: Final = (
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start",
)  # fmt: skip
_SYSCTLS_1_27: Final = (*_SYSCTLS, "net.ipv4.ip_local_reserved_ports")
_SYSCTLS_1_29: Final = (
    *_SYSCTLS_1_27, "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
)  # fmt: skip
_SYSCTLS_1_32: Final = (*_SYSCTLS_1_29, "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem")


def _annotated_seccomp(pod: Subject) -> Violation | None:
    keys = [_POD, *(f"{_CONTAINER}{name}" for name, _, _ in pod.containers())]
    bad = {
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in ((key, pod.annotations.get(key)) for key in keys)
        if value is not None
        and value not in ("runtime/default", "docker/default")
        and not value.startswith("localhost/")
    }
    if not bad:
        return None
    word = "annotation" if len(bad) == 1 else "annotations"
    return Violation("seccompProfile", f"forbidden {word} {', '.join(sorted(bad))}")


def _seccomp(pod: Subject) -> Violation | None:
    values: set[str] = set()

    def is_bad(security: Mapping[str, Any]) -> bool:
        profile = security.get("seccompProfile")
        if profile is None or profile.get("type") in _SECCOMP:
            return False
        values.add(profile.get("type", ""))
        return True

    setters = pod.setters(is_bad)
    if not setters:
        return None
    kinds = '"' + '", "'.join(sorted(values)) + '"'
    detail = f"{' and '.join(setters)} must not set securityContext.seccompProfile.type to {kinds}"
    return Violation("seccompProfile", detail)


def _some_seccomp(pod: Subject) -> Violation | None:
    bad = _seccomp(pod)
    if bad is not None or pod.security.get("seccompProfile") is not None:
        return bad
    without = [name for name, _, security in pod.containers() if security.get("seccompProfile") is None]
    if not without:
        return None
    word, names = "container" if len(without) == 1 else "containers", '", "'.join(without)
    wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return Violation("seccompProfile", f'pod or {word} "{names}" {wanted}')


def _sysctls(allowed: tuple[str, ...]) -> Check:
    def check(pod: Subject) -> Violation | None:
        bad = [each["name"] for each in pod.security.get("sysctls") or () if each["name"] not in allowed]
        return Violation("forbidden sysctls", ", ".join(bad)) if bad else None

    return check


def _host_process(pod: Subject) -> Violation | None:
    setters = pod.setters(lambda security: bool((security.get("windowsOptions") or {}).get("hostProcess")))
    if not setters:
        return None
    detail = f"{' and '.join(setters)} must not set securityContext.windowsOptions.hostProcess=true"
    return Violation("hostProcess", detail)


def _not_windows(check: Check) -> Check:
    return lambda pod: None if pod.is_of_windows else check(pod)


def _not_own_users(check: Check) -> Check:
    return lambda pod: None if pod.has_own_users else check(pod)


# From which 1.x on each check is made, and how; each later one takes the place of the one before.
_BASELINE: Final[Mapping[str, tuple[tuple[int, Check], ...]]] = {
    "appArmorProfile": ((0, checks.app_armor),),
    "capabilities_baseline": ((0, checks.capabilities_baseline),),
    "hostNamespaces": ((0, checks.host_namespaces),),
    "hostPathVolumes": ((0, checks.host_path_volumes),),
    "hostPorts": ((0, checks.host_ports),),
    "hostProbesAndHostLifecycle": ((34, checks.host_probes),),
    "privileged": ((0, checks.privileged),),
    "procMount": ((0, checks.proc_mount), (35, _not_own_users(checks.proc_mount))),
    "seLinuxOptions": ((0, checks.selinux), (31, checks.selinux_1_31)),
    "seccompProfile_baseline": ((0, _annotated_seccomp), (19, _seccomp)),
    "sysctls": (
        (0, _sysctls(_SYSCTLS)),
        (27, _sysctls(_SYSCTLS_1_27)),
        (29, _sysctls(_SYSCTLS_1_29)),
        (32, _sysctls(_SYSCTLS_1_32)),
    ),
    "windowsHostProcess": ((0, _host_process),),
}
_RESTRICTED: Final[Mapping[str, tuple[tuple[int, Check], ...]]] = {
    "allowPrivilegeEscalation": (
        (8, checks.allow_privilege_escalation),
        (25, _not_windows(checks.allow_privilege_escalation)),
    ),
    "capabilities_restricted": (
        (22, checks.capabilities_restricted),
        (25, _not_windows(checks.capabilities_restricted)),
    ),
    "procMount_restricted": ((35, checks.proc_mount),),
    "restrictedVolumes": ((0, checks.restricted_volumes),),
    "runAsNonRoot": ((0, checks.run_as_non_root), (35, _not_own_users(checks.run_as_non_root))),
    "runAsUser": ((23, checks.run_as_user), (35, _not_own_users(checks.run_as_user))),
    "seccompProfile_restricted": ((19, _some_seccomp), (25, _not_windows(_some_seccomp))),
}
# The check of the baseline that each of these takes the place of.
_INSTEAD: Final = {
    "capabilities_restricted": "capabilities_baseline",
    "procMount_restricted": "procMount",
    "restrictedVolumes": "hostPathVolumes",
    "seccompProfile_restricted": "seccompProfile_baseline",
}


def _at(versions: tuple[tuple[int, Check], ...], minor: int) -> Check | None:
    return next((check for since, check in reversed(versions) if since <= minor), None)


@cache
def _profile(level: Level, minor: int) -> tuple[Check, ...]:
    baseline = {name: _at(versions, minor) for name, versions in _BASELINE.items()}
    restricted: dict[str, Check | None] = {}
    if level == "restricted":
        restricted = {name: _at(versions, minor) for name, versions in _RESTRICTED.items()}
        for name, other in _INSTEAD.items():
            if restricted[name] is not None:
                del baseline[other]
    return tuple(check for check in (baseline | restricted).values() if check is not None)


def violations(level: Level, minor: int, pod: Mapping[str, Any]) -> list[Violation]:
    """What of a pod, or of a template, the profile of Kubernetes 1.`minor` forbids."""
    if level == "privileged":
        return []
    subject = Subject(pod)
    return [bad for check in _profile(level, min(minor, NEWEST)) if (bad := check(subject)) is not None]

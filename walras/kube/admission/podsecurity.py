"""Pod Security admission: namespaces say by labels which profile their pods are held to, or warned of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from walras.core.errors import Cause
from walras.kube import validation
from walras.kube.admission.call import Call
from walras.kube.admission.podprofiles import LEVELS, NEWEST, Level, violations
from walras.kube.objects import NAMESPACES, PODS
from walras.kube.policy import forbidden
from walras.kube.record import Object

_PREFIX: Final = "pod-security.kubernetes.io/"
_MINOR: Final = re.compile(r"v1\.([0-9]|[1-9][0-9]{0,8})")
# As many pods of a namespace are looked at when it becomes stricter; each takes some 20 µs.
PODS_MAX: Final = 3000
TEMPLATED: Final = (
    "podtemplates", "replicationcontrollers", "replicasets.apps", "deployments.apps", "statefulsets.apps",
    "daemonsets.apps", "jobs.batch", "cronjobs.batch",
)  # fmt: skip
_UNCHECKED: Final = ("attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "status")


@dataclass(frozen=True, slots=True)
class Held:
    """A profile at a version: `minor` of 1.x, None for the latest."""

    level: Level = "privileged"
    minor: int | None = None

    def __str__(self) -> str:
        return f"{self.level}:{'latest' if self.minor is None else f'v1.{self.minor}'}"

    def of(self, pod: Object) -> list[str]:
        return [str(bad) for bad in violations(self.level, NEWEST if self.minor is None else self.minor, pod)]

    def reasons(self, pod: Object) -> str:
        found = violations(self.level, NEWEST if self.minor is None else self.minor, pod)
        return ", ".join(bad.reason for bad in found)


def _read(labels: Mapping[str, str], mode: str, causes: list[Cause], on_fault: Level) -> Held:
    level: Level = "privileged"
    minor: int | None = None
    given = labels.get(_PREFIX + mode)
    if given is not None:
        level = next((each for each in LEVELS if each == given), on_fault)
        if given not in LEVELS:
            causes.append(_cause(mode, given, f"must be one of {', '.join(LEVELS)}"))
    version = labels.get(f"{_PREFIX}{mode}-version")
    if version not in (None, "latest"):
        match = _MINOR.fullmatch(version or "")
        if match is None:
            causes.append(_cause(f"{mode}-version", version or "", 'must be "latest" or "v1.x"'))
        else:
            minor = int(match.group(1))
    return Held(level, minor)


def _cause(label: str, value: str, why: str) -> Cause:
    return Cause(
        "FieldValueInvalid",
        f'Invalid value: "{value}": {why}',
        f"metadata.labels[{_PREFIX}{label}]",
    )


def held(namespace: Object | None) -> tuple[Held, Held, Held, list[Cause]]:
    """What a namespace's pods are held to, warned of and noted for in the audit log; what its labels lack."""
    labels = ((namespace or {}).get("metadata") or {}).get("labels") or {}
    if not any(key.startswith(_PREFIX) for key in labels):
        return _FREE, _FREE, _FREE, []
    causes: list[Cause] = []
    enforced = _read(labels, "enforce", causes, "restricted")
    audited = _read(labels, "audit", causes, "privileged")
    warned = _read(labels, "warn", causes, "privileged")
    given = labels.get(f"{_PREFIX}enforce")
    if f"{_PREFIX}warn" not in labels and given in LEVELS and enforced.level != "privileged":
        # Who is not asked to be warned is warned of what is enforced.
        minor = warned.minor if f"{_PREFIX}warn-version" in labels else enforced.minor
        warned = Held(enforced.level, minor)
    return enforced, warned, audited, causes


_FREE: Final = Held()


def validate(call: Call) -> None:
    """Raises Forbidden for a pod that its namespace forbids; Invalid for labels that say nothing."""
    if call.operation not in ("CREATE", "UPDATE"):
        return
    if call.key == NAMESPACES:
        if not call.subresource:
            _of_namespace(call)
    elif call.key == PODS:
        if call.subresource not in _UNCHECKED:
            _of_pod(call)
    elif not call.subresource:
        _of_template(call)


def _of_namespace(call: Call) -> None:
    enforced, _, _, causes = held(call.object)
    before, _, _, causes_before = held(call.old)
    if causes and causes != causes_before:
        raise validation.invalid(call.resource, call.name, causes)
    if call.operation == "CREATE" or enforced == before or enforced.level == "privileged":
        return
    if enforced.minor == before.minor and LEVELS.index(enforced.level) <= LEVELS.index(before.level):
        return
    call.ctx.warnings += _existing(call, enforced)


def _existing(call: Call, enforced: Held) -> list[str]:
    """Warns of the pods that would be refused from now on."""
    pods = call.api.list(call.ctx.cluster, PODS, call.name)
    warnings: list[str] = []
    if len(pods) > PODS_MAX:
        what = f"the first {PODS_MAX} of {len(pods)} existing pods"
        warnings.append(f"new PodSecurity enforce level only checked against {what}")
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    for pod in pods[:PODS_MAX]:
        why = enforced.reasons(pod)
        if why:
            counts[why] += 1
            name = pod["metadata"]["name"]
            names[why] = min(names.get(why, name), name)
    if counts:
        warnings.append(
            f'existing pods in namespace "{call.name}" violate the new PodSecurity enforce level "{enforced}"'
        )
    return warnings + sorted(f"{names[why]}{_others(count - 1)}: {why}" for why, count in counts.items())


def _others(count: int) -> str:
    return f" (and {count} other pod{'' if count == 1 else 's'})" if count else ""


def _policy(call: Call) -> tuple[Held, Held, Held]:
    return held(call.api.find(call.ctx.cluster, NAMESPACES, "", call.namespace))[:3]


def _of_pod(call: Call) -> None:
    enforced, warned, audited = _policy(call)
    if enforced.level == warned.level == audited.level == "privileged":
        return
    if call.old is not None and not _is_significant(call.object["spec"], call.old["spec"]):
        return
    call.note(f"{_PREFIX}enforce-policy", str(enforced))
    bad = enforced.of(call.object)
    _audit(call, audited, call.object)
    if bad:
        why = f'violates PodSecurity "{enforced}": {", ".join(bad)}'
        raise forbidden(call.resource.key, call.name, why)
    _warn(call, warned, call.object)


def _of_template(call: Call) -> None:
    _, warned, audited = _policy(call)
    if warned.level == audited.level == "privileged":
        return
    obj = call.object
    spec = obj if call.key == "podtemplates" else obj.get("spec") or {}
    if call.key == "cronjobs.batch":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    template = spec.get("template")
    if template:
        _audit(call, audited, template)
        _warn(call, warned, template)


def _audit(call: Call, audited: Held, pod: Object) -> None:
    bad = audited.of(pod)
    if bad:
        call.note(f"{_PREFIX}audit-violations", f'would violate PodSecurity "{audited}": {", ".join(bad)}')


def _warn(call: Call, warned: Held, pod: Object) -> None:
    bad = warned.of(pod)
    if bad:
        call.ctx.warnings.append(f'would violate PodSecurity "{warned}": {", ".join(bad)}')


def _is_significant(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether an update changes what a pod runs; little else of a pod can be."""
    for field in ("containers", "initContainers"):
        images = [each.get("image") for each in new.get(field) or ()]
        if images != [each.get("image") for each in old.get(field) or ()]:
            return True
    before = {each["name"]: each.get("image") for each in old.get("ephemeralContainers") or ()}
    return any(
        each["name"] not in before or before[each["name"]] != each.get("image")
        for each in new.get("ephemeralContainers") or ()
    )

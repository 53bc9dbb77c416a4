"""Ephemeral containers, which are added to a pod that is there already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.validation.containers import common, image
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

_FORBIDDEN: Final = (
    "ports", "resources", "resizePolicy", "restartPolicy", "restartPolicyRules", "livenessProbe",
    "readinessProbe", "startupProbe", "lifecycle",
)  # fmt: skip
_DETAIL: Final = "cannot be set for an Ephemeral Container"


def added(faults: Faults, obj: Object, old: Object | None) -> None:
    """A pod as a write of its subresource `ephemeralcontainers` would leave it."""
    spec = obj.get("spec") or {}
    _check(faults, "spec.ephemeralContainers", spec)
    before = ((old or {}).get("spec") or {}).get("ephemeralContainers") or ()
    after = {each.get("name"): each for each in spec.get("ephemeralContainers") or ()}
    for each in before:
        if each["name"] not in after:
            detail = f'existing ephemeral containers "{each["name"]}" may not be removed\n'
            faults.forbidden("spec.ephemeralContainers", detail)
        elif after[each["name"]] != each:
            detail = f'existing ephemeral containers "{each["name"]}" may not be changed\n'
            faults.forbidden("spec.ephemeralContainers", detail)


def _check(faults: Faults, path: str, spec: Object) -> None:
    others = {each.get("name") for kind in ("containers", "initContainers") for each in spec.get(kind) or ()}
    taken = set(others)
    known = {volume.get("name", ""): volume for volume in spec.get("volumes") or ()}
    for index, container in enumerate(spec.get("ephemeralContainers") or ()):
        at, name = f"{path}[{index}]", container.get("name", "")
        common(faults, at, container, known, spec)
        image(faults, at, container)
        if name in taken:
            faults.duplicate(f"{at}.name", name)
        taken.add(name)
        target = container.get("targetContainerName")
        if target and target not in others:
            faults.not_found(f"{at}.targetContainerName", target)
        for field in _FORBIDDEN:
            if container.get(field):
                faults.forbidden(f"{at}.{field}", _DETAIL)
        for number, mount in enumerate(container.get("volumeMounts") or ()):
            for field in ("subPath", "subPathExpr"):
                if mount.get(field):
                    faults.forbidden(f"{at}.volumeMounts[{number}].{field}", _DETAIL)

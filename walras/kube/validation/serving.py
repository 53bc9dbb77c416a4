"""What Knative asks of functions that their schemas cannot say: what stands where it has no effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.core.errors import Invalid
from walras.core.quantity import parse_duration_ms
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

_AUTOSCALING: Final = "autoscaling.knative.dev/"
_ROLLOUT: Final = ("serving.knative.dev/rollout-duration", "serving.knative.dev/rolloutDuration")
_NONE: Final = ("", "0", "0s", "0m", "0h")
_ROLLOUT_MS_MAX: Final = 24 * 3_600_000


def of_template(faults: Faults, obj: Object, old: Object | None) -> None:
    """A Service or a Configuration."""
    route(faults, obj, old)
    before, template = (_within(_within(each, "spec"), "template") for each in (old, obj))
    name = _within(template, "metadata").get("name")
    if not before or not name or _within(before, "metadata").get("name") != name:
        return
    if before != template:
        faults.invalid(
            "spec.template.metadata.name", name, "must change with the template: it names what it was before"
        )


def route(faults: Faults, obj: Object, old: Object | None) -> None:
    del old
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    for key in annotations:
        if key.startswith(_AUTOSCALING):
            faults.forbidden(
                f"metadata.annotations[{key}]",
                'autoscaling annotations must be put under "spec.template.metadata.annotations" to work',
            )
    for key in _ROLLOUT:
        said = annotations.get(key, "")
        if said not in _NONE and not _is_duration(said):
            detail = 'must be a duration of whole seconds of at most 24h, such as "10m"'
            faults.invalid(f"metadata.annotations[{key}]", said, detail)


def _is_duration(text: str) -> bool:
    try:
        ms = parse_duration_ms(text)
    except Invalid:
        return False
    return ms % 1000 == 0 and 0 <= ms <= _ROLLOUT_MS_MAX


def _within(value: Any, field: str) -> Object:
    """What is there; {} where there is nothing, or what its schema refuses."""
    found = value.get(field) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}

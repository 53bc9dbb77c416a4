"""How a revision wants to be scaled and given requests: its spec and annotations as numbers. Pure.

Names, defaults and bounds are those of Knative's autoscaler (knative.dev/docs/serving/autoscaling).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from walras.core.errors import Invalid
from walras.core.quantity import parse_duration_ms
from walras.functions.words import DEFAULT_TIMEOUT_S
from walras.tenants.objects import Object

# As many as a revision has that names no maximum, and that has any.
INSTANCES_DEFAULT: Final = 100
INSTANCES_MAX: Final = 1000
WINDOW_MS_MIN: Final = 1_000
WINDOW_MS_MAX: Final = 3_600_000
_PREFIX: Final = "autoscaling.knative.dev/"
_TARGET_MILLI: Final = {"concurrency": 100_000, "rps": 200_000}
_NUMBER: Final = re.compile(r"(\d{1,6})(?:\.(\d{1,3}))?", re.ASCII)

Metric = Literal["concurrency", "rps"]


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many instances there shall be. `target_milli` is what one of them is to bear, in thousandths of a
    request at once or a second, utilisation counted in."""

    minimum: int = 0
    maximum: int = INSTANCES_DEFAULT
    initial: int = 1
    # As many at least where there is one at all.
    activation: int = 1
    metric: Metric = "concurrency"
    target_milli: int = 70_000
    window_ms: int = 60_000
    panic_window_ms: int = 6_000
    panic_threshold_percent: int = 200
    down_delay_ms: int = 0
    # How long the last instance is kept once nobody needs it.
    retention_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request is held to. `concurrency` 0 is any number at once; None is no limit of its own."""

    concurrency: int = 0
    timeout_ms: int = DEFAULT_TIMEOUT_S * 1000
    start_ms: int | None = None
    idle_ms: int | None = None


def limits_of(revision: Object) -> Limits:
    """What the revision's spec says."""
    spec = revision["spec"]

    def ms(field: str) -> int | None:
        return int(spec[field]) * 1000 if spec.get(field) else None

    return Limits(
        int(spec.get("containerConcurrency") or 0),
        ms("timeoutSeconds") or DEFAULT_TIMEOUT_S * 1000,
        ms("responseStartTimeoutSeconds"),
        ms("idleTimeoutSeconds"),
    )


def scaling_of(revision: Object) -> Scaling:
    """What the revision's annotations say. Raises Invalid."""
    said: Mapping[str, str] = revision["metadata"].get("annotations") or {}
    metric = _said(said, "metric") or "concurrency"
    if metric not in _TARGET_MILLI:
        raise Invalid(f'{_PREFIX}metric: "{metric}" is neither concurrency nor rps')
    minimum, maximum = _integer(said, "min-scale", 0), _integer(said, "max-scale", 0)
    maximum = min(maximum or max(minimum, INSTANCES_DEFAULT), INSTANCES_MAX)
    window_ms = min(max(_duration(said, "window", 60_000), WINDOW_MS_MIN), WINDOW_MS_MAX)
    panic = min(max(_milli(said, "panic-window-percentage", 10_000), 1000), 100_000)
    return Scaling(
        min(minimum, maximum),
        maximum,
        min(_integer(said, "initial-scale", 1), maximum),
        max(1, min(_integer(said, "activation-scale", 1), maximum)),
        "rps" if metric == "rps" else "concurrency",
        _target_milli(said, metric, limits_of(revision).concurrency),
        window_ms,
        max(WINDOW_MS_MIN, window_ms * panic // 100_000),
        max(110, _milli(said, "panic-threshold-percentage", 200_000) // 1000),
        _duration(said, "scale-down-delay", 0),
        _duration(said, "scale-to-zero-pod-retention-period", 30_000),
    )


def _target_milli(said: Mapping[str, str], metric: str, concurrency: int) -> int:
    target = _milli(said, "target", _TARGET_MILLI[metric])
    if metric == "concurrency" and concurrency:
        # What an instance is never given more than is its target, unless a lower one is named.
        target = min(target, concurrency * 1000)
    utilisation = min(max(_milli(said, "target-utilization-percentage", 70_000), 1000), 100_000)
    return max(10, target * utilisation // 100_000)


def _said(annotations: Mapping[str, str], name: str) -> str | None:
    """An annotation, by its name or by the older one in camel case."""
    first, *rest = name.split("-")
    older = first + "".join(word.capitalize() for word in rest)
    return annotations.get(_PREFIX + name, annotations.get(_PREFIX + older))


def _integer(annotations: Mapping[str, str], name: str, default: int) -> int:
    said = _said(annotations, name)
    if said is None:
        return default
    if not re.fullmatch(r"\d{1,9}", said, re.ASCII):
        raise Invalid(f'{_PREFIX}{name}: "{said[:32]}" is no integer of 0 or more')
    return int(said)


def _milli(annotations: Mapping[str, str], name: str, default: int) -> int:
    """A decimal number in thousandths."""
    said = _said(annotations, name)
    if said is None:
        return default
    match = _NUMBER.fullmatch(said)
    if match is None:
        raise Invalid(f'{_PREFIX}{name}: "{said[:32]}" is no number such as 10 or 0.5')
    return int(match[1]) * 1000 + int((match[2] or "").ljust(3, "0"))


def _duration(annotations: Mapping[str, str], name: str, default_ms: int) -> int:
    said = _said(annotations, name)
    if said is None:
        return default_ms
    try:
        return 0 if said in ("0", "0s", "0m") else min(parse_duration_ms(said), WINDOW_MS_MAX)
    except Invalid as error:
        raise Invalid(f"{_PREFIX}{name}: {error.message}") from None

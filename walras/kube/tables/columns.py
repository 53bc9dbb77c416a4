"""What all printers share: column definitions, ages, and the texts that several kinds show.

columns.json has the columns of built-in types: scripts/generate-types asks a real kube-apiserver for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec

from walras.core.clock import parse_rfc3339

Object = dict[str, Any]
Cells = Callable[[Object, int], list[Any]]

UNKNOWN: Final = "<unknown>"
NONE: Final = "<none>"
UNSET: Final = "<unset>"


@dataclass(frozen=True, slots=True)
class Column:
    """A `TableColumnDefinition`. `priority` 1 shows only with `-o wide`."""

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    about: str = ""

    def definition(self) -> Object:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.about,
            "priority": self.priority,
        }


@cache
def _builtin() -> Mapping[str, tuple[Column, ...]]:
    raw: dict[str, Any] = msgspec.json.decode(
        files("walras.kube.tables").joinpath("columns.json").read_bytes()
    )
    texts = raw.pop("")
    return {
        key: tuple(
            Column(name, kind, form, priority, texts[text]) for name, kind, form, priority, text in rows
        )
        for key, rows in raw.items()
    }


def columns_of(key: str) -> tuple[Column, ...]:
    """The columns of a built-in type, by `Resource.key`; those of a type of which nothing is known else."""
    return _builtin().get(key) or _builtin()["limitranges"]


@dataclass(frozen=True, slots=True)
class Printer:
    """How a kind looks in a table: `cells(object, now_ms)` gives one value a column."""

    columns: tuple[Column, ...]
    cells: Cells
    conditions: Callable[[Object], list[Object]] | None = None


def human_duration(ms: int) -> str:
    """A duration as kubectl shows it: at most two units, the coarser the longer it is."""
    seconds = int(ms / 1000)
    minutes, hours = seconds // 60, seconds // 3600
    if seconds < -1:
        return "<invalid>"
    if seconds < 120:
        return f"{max(seconds, 0)}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return _two(hours // 24, "d", hours % 24, "h")
    days = hours // 24
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"


def moment_ms(timestamp: str | None) -> int | None:
    """Milliseconds since the epoch of a time that clients may have written; None where it is none."""
    try:
        return parse_rfc3339(timestamp) if timestamp else None
    except (ValueError, OverflowError):
        return None


def since(timestamp: str | None, now_ms: int) -> str:
    """How long ago a time was, "<unknown>" where there is none."""
    if not timestamp:
        return UNKNOWN
    at_ms = moment_ms(timestamp)
    return "<invalid>" if at_ms is None else human_duration(now_ms - at_ms)


def age(obj: Mapping[str, Any], now_ms: int) -> str:
    return since((obj.get("metadata") or {}).get("creationTimestamp"), now_ms)


def name(obj: Mapping[str, Any]) -> str:
    return str((obj.get("metadata") or {}).get("name", ""))


def spec(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    return obj.get("spec") or {}


def status(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    return obj.get("status") or {}


def condition(of: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The status' condition of that type, empty where there is none."""
    return next((held for held in of.get("conditions") or () if held.get("type") == kind), {})


def containers(workload: Mapping[str, Any]) -> tuple[str, str]:
    """Names and images of the containers in a workload's pod template."""
    return template_containers(spec(workload).get("template"))


def template_containers(template: Mapping[str, Any] | None) -> tuple[str, str]:
    """Names and images of the containers in a pod template."""
    held: Sequence[Mapping[str, Any]] = ((template or {}).get("spec") or {}).get("containers") or ()
    return ",".join(c.get("name", "") for c in held), ",".join(c.get("image", "") for c in held)


def labels_text(labels: Mapping[str, str] | None) -> str:
    return ",".join(sorted(f"{key}={value}" for key, value in (labels or {}).items())) or NONE


def selector_text(selector: Mapping[str, Any] | None) -> str:
    """A label selector as it would be typed after `-l`, sorted by key; "" selects everything."""
    if selector is None:
        return ""
    terms = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for term in selector.get("matchExpressions") or ():
        key, values = term.get("key", ""), ",".join(sorted(term.get("values") or ()))
        match term.get("operator"):
            case "In":
                terms.append((key, f"{key} in ({values})"))
            case "NotIn":
                terms.append((key, f"{key} notin ({values})"))
            case "Exists":
                terms.append((key, key))
            case _:
                terms.append((key, f"!{key}"))
    return ",".join(text for _, text in sorted(terms, key=lambda term: term[0]))


def at_most(texts: Sequence[str], most: int = 3) -> str:
    """The first texts, and how many more there are."""
    shown = ",".join(texts[:most])
    if len(texts) > most:
        return f"{shown} + {len(texts) - most} more..."
    return shown or UNSET

"""Who asks, of which cluster, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# Stands for every cluster at once, for the operator's reads.
EVERY_CLUSTER = "*"


@dataclass(frozen=True)
class Identity:
    """An authenticated caller. `cluster` is the only one it may open; "" is the operator's: all of them."""

    user: str
    groups: tuple[str, ...] = ()
    cluster: str = ""


@dataclass
class Context:
    """One request's caller and options. What the caller should be warned of collects in `warnings`."""

    identity: Identity
    cluster: str
    dry_run: bool = False
    field_manager: str = ""
    field_validation: Literal["Strict", "Warn", "Ignore"] = "Warn"
    warnings: list[str] = field(default_factory=list)

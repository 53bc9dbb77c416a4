"""Who asks, of which cluster, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from walras.kube.access.authoriser import Authoriser
    from walras.kube.admission.call import Review
    from walras.kube.conversion.answers import Conversions
    from walras.kube.steps import Steps

# Stands for every cluster at once, for the operator's reads.
EVERY_CLUSTER = "*"


@dataclass(frozen=True)
class Identity:
    """An authenticated caller. `cluster` is the only one it may open; "" is the operator's: all of them."""

    user: str
    groups: tuple[str, ...] = ()
    cluster: str = ""
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    # Who asks in this one's name; None for oneself.
    actor: Identity | None = None

    @property
    def payer(self) -> tuple[str, str]:
        """(cluster, user) whose limits a request counts against: users of one cluster share them."""
        asking = self.actor or self
        return (asking.cluster, "" if asking.cluster else asking.user)


@dataclass
class Context:
    """One request's caller and options. What the caller should be warned of collects in `warnings`."""

    identity: Identity
    cluster: str
    dry_run: bool = False
    field_manager: str = ""
    field_validation: Literal["Strict", "Warn", "Ignore"] = "Warn"
    # Whether it is a PATCH, of which some warnings tell another story.
    patching: bool = False
    # Fields that the body gives more than once: the paths of those in JSON, the lines of those in YAML.
    duplicates: tuple[str, ...] = ()
    repeats: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    # What admission notes of the request, for the audit log.
    annotations: dict[str, str] = field(default_factory=dict)
    # Raises NotFound once another cluster has the name: to be called after waiting. None where nobody waits.
    still: Callable[[], None] | None = None
    # Asked where a write turns out to be more than the request said; None when the server itself writes.
    access: Authoriser | None = None
    # Set while somebody outside is asked about the write; see admission/call.py.
    review: Review | None = None
    # Set once something has to be converted by a webhook; see conversion/answers.py.
    conversions: Conversions | None = None
    # What became of its long steps, where what it writes is large; see steps.py.
    steps: Steps | None = None
    # Told of the nanoseconds that it took beside the event loop.
    charge: Callable[[int], None] | None = None
    # The body of the request's options, where it had one.
    options: dict[str, Any] = field(default_factory=dict)

    def check_still(self) -> None:
        """Raises NotFound where the cluster that the caller was let into is gone."""
        if self.still is not None:
            self.still()

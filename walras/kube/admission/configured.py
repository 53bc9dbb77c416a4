"""What clusters configure about admission: an index that changes keep, empty for who configures nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from walras.kube.record import Object

if TYPE_CHECKING:
    from walras.kube.api import API, Change

_GROUP: Final = "admissionregistration.k8s.io"
MUTATING_WEBHOOKS: Final = f"mutatingwebhookconfigurations.{_GROUP}"
VALIDATING_WEBHOOKS: Final = f"validatingwebhookconfigurations.{_GROUP}"
MUTATING_POLICIES: Final = f"mutatingadmissionpolicies.{_GROUP}"
MUTATING_BINDINGS: Final = f"mutatingadmissionpolicybindings.{_GROUP}"
VALIDATING_POLICIES: Final = f"validatingadmissionpolicies.{_GROUP}"
VALIDATING_BINDINGS: Final = f"validatingadmissionpolicybindings.{_GROUP}"
KINDS: Final = (
    MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS, MUTATING_POLICIES, MUTATING_BINDINGS, VALIDATING_POLICIES,
    VALIDATING_BINDINGS,
)  # fmt: skip


class Configured:
    """The configurations of each cluster, by kind and in order of their names."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, list[Object]]] = {}

    def watch(self, api: API) -> list[Callable[[], None]]:
        return [*(api.subscribe(kind, self._changed) for kind in KINDS), api.on_sleep(self._forget)]

    def _forget(self, cluster: str) -> None:
        """A cluster that wakes brings its configurations along."""
        self._of.pop(cluster, None)

    def _changed(self, change: Change) -> None:
        kinds = self._of.setdefault(change.cluster, {})
        name = change.object["metadata"]["name"]
        found = [each for each in kinds.get(change.resource, ()) if each["metadata"]["name"] != name]
        if change.type != "DELETED":
            found.append(change.object)
        kinds[change.resource] = sorted(found, key=lambda each: str(each["metadata"]["name"]))
        if not found:
            del kinds[change.resource]
        if not kinds:
            del self._of[change.cluster]

    def has(self, cluster: str) -> bool:
        return cluster in self._of

    def of(self, cluster: str, kind: str) -> list[Object]:
        """The objects of one kind; never to be mutated."""
        return self._of.get(cluster, {}).get(kind, [])

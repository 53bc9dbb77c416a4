"""Knative's words: resources, labels, annotations, and what conditions together say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from walras.tenants.objects import Object, condition, set_condition

GROUP: Final = "serving.knative.dev"
SERVICES: Final = f"services.{GROUP}"
CONFIGURATIONS: Final = f"configurations.{GROUP}"
REVISIONS: Final = f"revisions.{GROUP}"
ROUTES: Final = f"routes.{GROUP}"
DOMAIN_MAPPINGS: Final = f"domainmappings.{GROUP}"
# In the operator's cluster.
CLAIMS: Final = "clusterdomainclaims.networking.internal.knative.dev"

SERVICE: Final = f"{GROUP}/service"
SERVICE_UID: Final = f"{GROUP}/serviceUID"
CONFIGURATION: Final = f"{GROUP}/configuration"
CONFIGURATION_UID: Final = f"{GROUP}/configurationUID"
GENERATION: Final = f"{GROUP}/configurationGeneration"
ROUTE: Final = f"{GROUP}/route"
REVISION: Final = f"{GROUP}/revision"
REVISION_UID: Final = f"{GROUP}/revisionUID"
# Whether a route leads to a revision: "active", "reserve" once none does any more, "pending" before one did.
ROUTING_STATE: Final = f"{GROUP}/routingState"
# Since when it does.
ROUTING_STATE_MODIFIED: Final = f"{GROUP}/routingStateModified"
# How long requests take to move to a new revision, and where a route's status has those that do.
ROLLOUT_DURATIONS: Final = (f"{GROUP}/rollout-duration", f"{GROUP}/rolloutDuration")
ROLLOUT: Final = f"{GROUP}/rollout"
NO_GC: Final = f"{GROUP}/no-gc"
PROGRESS_DEADLINE: Final = f"{GROUP}/progress-deadline"
VISIBILITY: Final = "networking.knative.dev/visibility"
CLUSTER_LOCAL: Final = "cluster-local"
# On a claim that goes with what it was made for.
MADE_FOR: Final = "walras.dev/made-for"
CLASS: Final = "walras.dev/class"

READY: Final = "Ready"
USER_CONTAINER: Final = "user-container"
DEFAULT_PORT: Final = 8080
# The name of a port where HTTP/2 is spoken without TLS.
H2C: Final = "h2c"
DEFAULT_TIMEOUT_S: Final = 300


class Where(NamedTuple):
    """A revision or a route: its cluster, namespace and name."""

    cluster: str
    namespace: str
    name: str


def sum_up(obj: Object, kinds: Sequence[str], now: str) -> None:
    """Sets Ready in place: False or Unknown, for its reason, where one of the conditions is, else True."""
    found = [condition(obj, kind) or {"status": "Unknown"} for kind in kinds]
    for value in ("False", "Unknown"):
        first = next((each for each in found if each["status"] == value), None)
        if first is not None:
            reason, message = first.get("reason", ""), first.get("message", "")
            set_condition(obj, READY, value, now, reason=reason, message=message)
            return
    set_condition(obj, READY, "True", now)

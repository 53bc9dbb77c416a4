"""Who did what, and what came of it: Events of audit.k8s.io/v1 at the level Metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from walras.core.clock import Clock, Ids, rfc3339_micro
from walras.core.errors import WalrasError
from walras.kube.context import Identity
from walras.kube.serve.asking import attributes
from walras.kube.serve.auditlog import AuditLog
from walras.kube.serve.requests import Request
from walras.kube.serve.reviews import user_info

Object = dict[str, Any]
Stage = Literal["ResponseStarted", "ResponseComplete"]
# As much of what a caller wrote as an event repeats.
URI_MAX: Final = 8192
AGENT_MAX: Final = 1024


class Audit:
    """Writes the events of requests to a log."""

    def __init__(self, log: AuditLog, clock: Clock, ids: Ids, nobody: Identity) -> None:
        self._log = log
        self._clock = clock
        self._ids = ids
        self._nobody = nobody

    def begin(self, scope: Mapping[str, Any]) -> Trail:
        """The trail of a request that has just arrived."""
        return Trail(self._log, self._clock, self._ids.uid(), scope, self._nobody)


class Trail:
    """One request on its way."""

    def __init__(
        self, log: AuditLog, clock: Clock, audit_id: str, scope: Mapping[str, Any], nobody: Identity
    ) -> None:
        self._log, self._clock, self._scope, self._nobody = log, clock, scope, nobody
        self._id = audit_id
        self._received = rfc3339_micro(clock.now_ms())

    def note(self, stage: Stage, request: Request | None, code: int, error: WalrasError | None) -> None:
        """Writes the event of a stage. `request` is None where it could not be read, or nobody's."""
        event: Object = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": self._id,
            "stage": stage,
            "requestURI": _uri(self._scope),
            **_asked(request, str(self._scope["method"])),
            **_who(request.identity if request else self._nobody),
            "sourceIPs": [str(self._scope["client"][0])] if self._scope.get("client") else [],
            "userAgent": _agent(self._scope),
            "responseStatus": _status(code, error),
            "requestReceivedTimestamp": self._received,
            "stageTimestamp": rfc3339_micro(self._clock.now_ms()),
        }
        if request is not None and request.decision is not None:
            event["annotations"] = {
                **(request.asked.annotations if request.asked is not None else {}),
                "authorization.k8s.io/decision": "allow" if request.decision.allowed else "forbid",
                "authorization.k8s.io/reason": request.decision.reason,
            }
        self._log.record(event)


def _uri(scope: Mapping[str, Any]) -> str:
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    return f"{path}?{query}"[:URI_MAX] if query else path[:URI_MAX]


def _agent(scope: Mapping[str, Any]) -> str:
    found = next((value for name, value in scope["headers"] if name == b"user-agent"), b"")
    return str(found.decode("latin-1"))[:AGENT_MAX]


def _asked(request: Request | None, method: str) -> Object:
    if request is None:
        return {"verb": method.lower()}
    asked, route = attributes(request), request.route
    if route.place != "resource":
        return {"verb": asked.verb}
    reference = {
        "resource": route.plural,
        "namespace": asked.namespace,
        "name": route.name,
        "apiGroup": route.group,
        "apiVersion": route.version,
        "subresource": route.subresource,
    }
    return {"verb": asked.verb, "objectRef": {name: value for name, value in reference.items() if value}}


def _who(identity: Identity) -> Object:
    if identity.actor is None:
        return {"user": user_info(identity)}
    return {"user": user_info(identity.actor), "impersonatedUser": user_info(identity)}


def _status(code: int, error: WalrasError | None) -> Object:
    if error is None:
        return {"metadata": {}, "code": code}
    return {
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "reason": error.reason,
        "code": error.code,
    }

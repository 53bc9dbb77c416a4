"""The eviction subresource: a pod goes if the disruption budget over it allows that (KEP-85, KEP-3017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.core.clock import rfc3339
from walras.core.errors import Cause, InternalError, TooManyRequests
from walras.kube.api import API
from walras.kube.policy import forbidden
from walras.kube.record import Object
from walras.kube.selectors import from_label_selector
from walras.kube.transaction import Transaction

BUDGETS: Final = "poddisruptionbudgets.policy"
DISRUPTED_MAX: Final = 2_000
RETRY_AFTER_S: Final = 10
_REFUSED: Final = "Cannot evict pod as it would violate the pod's disruption budget."


def covers(budget: Object, pod: Object) -> bool:
    """Whether the budget is for the pod: one without a selector is for none."""
    selector = (budget.get("spec") or {}).get("selector")
    if selector is None:
        return False
    return from_label_selector(selector).matches(pod["metadata"].get("labels") or {})


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def spend(api: API, tx: Transaction, cluster: str, pod: Object) -> None:
    """Stages that the pod is disrupted. Raises TooManyRequests where its budget does not allow that."""
    metadata, phase = pod["metadata"], (pod.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed", "Pending") or metadata.get("deletionTimestamp"):
        return
    found = [each for each in api.list(cluster, BUDGETS, metadata["namespace"]) if covers(each, pod)]
    if not found:
        return
    if len(found) > 1:
        raise InternalError(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    name = found[0]["metadata"]["name"]
    budget = tx.peek(cluster, BUDGETS, metadata["namespace"], name)
    if budget is None or (not is_ready(pod) and _may_go_unready(budget)):
        return
    _check(budget)
    now = rfc3339(api.clock.now_ms())

    def note(latest: Object) -> None:
        status = latest.setdefault("status", {})
        status["disruptionsAllowed"] -= 1
        status["disruptedPods"] = {**(status.get("disruptedPods") or {}), metadata["name"]: now}
        if status["disruptionsAllowed"] == 0:
            status["conditions"] = conditions(latest, now)

    tx.edit(cluster, BUDGETS, metadata["namespace"], name, note)


def _may_go_unready(budget: Object) -> bool:
    """Whether a pod that is not ready may go without being counted."""
    spec, status = budget.get("spec") or {}, budget.get("status") or {}
    if spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    desired = int(status.get("desiredHealthy", 0))
    return desired > 0 and int(status.get("currentHealthy", 0)) >= desired


def _check(budget: Object) -> None:
    name, status = budget["metadata"]["name"], budget.get("status") or {}
    if int(status.get("observedGeneration", 0)) < int(budget["metadata"].get("generation", 0)):
        why = f"The disruption budget {name} is still being processed by the server."
        raise _too_many(why, RETRY_AFTER_S)
    allowed = int(status.get("disruptionsAllowed", 0))
    if allowed < 0:
        raise forbidden("poddisruptionbudget.policy", name, "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or {}) > DISRUPTED_MAX:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise forbidden("poddisruptionbudget.policy", name, why)
    if allowed == 0:
        raise _too_many(_why_not(name, status), None)


def _too_many(why: str, retry_after_s: int | None) -> TooManyRequests:
    return TooManyRequests(_REFUSED, causes=(Cause("DisruptionBudget", why),), retry_after_s=retry_after_s)


def _why_not(name: str, status: Mapping[str, Any]) -> str:
    failed = next(
        (
            each
            for each in status.get("conditions") or ()
            if each.get("type") == "DisruptionAllowed"
            and each.get("status") == "False"
            and each.get("message")
        ),
        None,
    )
    if failed is not None and failed.get("reason") == "SyncFailed":
        why = f"because it failed sync: {failed['message']}"
        return f"The disruption budget {name} does not allow evicting pods currently {why}"
    desired, current = int(status.get("desiredHealthy", 0)), int(status.get("currentHealthy", 0))
    if current <= desired:
        return f"The disruption budget {name} needs {desired} healthy pods and has {current} currently"
    return f"The disruption budget {name} does not allow evicting pods currently"


def conditions(budget: Object, now: str, failure: str = "") -> list[Object]:
    """The conditions of a budget by its status: whether a disruption is allowed."""
    status = budget.get("status") or {}
    enough = int(status.get("disruptionsAllowed", 0)) > 0 and not failure
    reason = "SyncFailed" if failure else "SufficientPods" if enough else "InsufficientPods"
    said = "True" if enough else "False"
    given = status.get("conditions") or ()
    before: Object = next((each for each in given if each.get("type") == "DisruptionAllowed"), {})
    since = before.get("lastTransitionTime", now) if before.get("status") == said else now
    made = {
        "type": "DisruptionAllowed",
        "status": said,
        "observedGeneration": int(budget["metadata"].get("generation", 0)),
        "lastTransitionTime": since,
        "reason": reason,
        "message": failure,
    }
    others = [each for each in given if each.get("type") != "DisruptionAllowed"]
    return [*others, made]

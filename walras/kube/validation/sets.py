"""DaemonSets, StatefulSets, ReplicationControllers and the like: rules of pkg/apis/apps/validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.validation import names
from walras.kube.validation.faults import Faults, go
from walras.kube.validation.metadata import label_selector, selects
from walras.kube.validation.pods import pod_template

Object = Mapping[str, Any]

# What an update of a StatefulSet may change.
_FREE: Final = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip
_STAYS: Final = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_POD_COUNTS: Final = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")


def _template(faults: Faults, spec: Object, selector: Object | None, kind: str) -> None:
    """The pod template of a set whose pods always run again."""
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels")
    if selector is None or not selects(selector, labels or {}):
        faults.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    pod_template(faults, "spec.template", template)
    inner = template.get("spec") or {}
    policy = inner.get("restartPolicy", "")
    if policy != "Always":
        faults.not_supported("spec.template.spec.restartPolicy", policy, ("Always",))
    if kind and inner.get("activeDeadlineSeconds") is not None:
        detail = f"activeDeadlineSeconds in {kind} is not Supported"
        faults.forbidden("spec.template.spec.activeDeadlineSeconds", detail)


def _selector(faults: Faults, spec: Object, kind: str) -> Object | None:
    selector: Object | None = spec.get("selector")
    if selector is None:
        faults.required("spec.selector")
        return None
    label_selector(faults, "spec.selector", selector)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        faults.invalid("spec.selector", selector, f"empty selector is invalid for {kind}")
    return selector


def daemon_set(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    if old is not None:
        faults.immutable("spec.selector", spec.get("selector"), (old.get("spec") or {}).get("selector"))
    selector: Object | None = spec.get("selector")
    if selector is not None:
        label_selector(faults, "spec.selector", selector)
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            faults.invalid("spec.selector", selector, "empty selector is invalid for daemonset")
    _template(faults, spec, selector, "DaemonSet")
    faults.nonnegative("spec.minReadySeconds", spec.get("minReadySeconds"))
    _daemon_strategy(faults, spec.get("updateStrategy") or {})
    faults.nonnegative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))


def _daemon_strategy(faults: Faults, strategy: Object) -> None:
    path, kind = "spec.updateStrategy", strategy.get("type", "")
    if kind == "OnDelete":
        return
    if kind != "RollingUpdate":
        shown = go(Type=kind, RollingUpdate=strategy.get("rollingUpdate"))
        faults.not_supported(path, shown, ("RollingUpdate", "OnDelete"))
        return
    rolling = strategy.get("rollingUpdate")
    if rolling is None:
        faults.required(f"{path}.rollingUpdate")
        return
    path = f"{path}.rollingUpdate"
    amounts = {field: rolling.get(field, 0) for field in ("maxUnavailable", "maxSurge")}
    for field, amount in amounts.items():
        share(faults, f"{path}.{field}", amount)
    zeros = [field for field, amount in amounts.items() if amount in (0, "0%")]
    if len(zeros) == 2:
        faults.required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0")
    elif not zeros:
        faults.invalid(
            f"{path}.maxSurge", amounts["maxSurge"], "may not be set when maxUnavailable is non-zero"
        )


def share(faults: Faults, path: str, amount: Any) -> None:
    """A number of pods, or a part of them in percent: not negative, and not more than all."""
    if isinstance(amount, str):
        said = names.percent(amount)
        faults.each(path, amount, said)
        if not said and int(amount[:-1]) > 100:
            faults.invalid(path, amount, "must not be greater than 100%")
    else:
        faults.nonnegative(path, amount)


def stateful_set(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    if old is not None:
        was = old.get("spec") or {}
        if any(spec.get(name) != was.get(name) for name in {*spec, *was} - {*_FREE}):
            faults.forbidden("spec", _STAYS)
    if spec.get("podManagementPolicy") not in ("OrderedReady", "Parallel"):
        policy = spec.get("podManagementPolicy", "")
        if not policy:
            faults.required("spec.podManagementPolicy")
        else:
            faults.invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'")
    _stateful_strategy(faults, spec.get("updateStrategy") or {})
    for when in ("whenDeleted", "whenScaled"):
        kept = (spec.get("persistentVolumeClaimRetentionPolicy") or {}).get(when, "")
        if kept not in ("Retain", "Delete"):
            path = f"spec.persistentVolumeClaimRetentionPolicy.{when}"
            faults.not_supported(path, kept, ("Retain", "Delete"))
    faults.nonnegative("spec.replicas", spec.get("replicas"))
    faults.nonnegative("spec.minReadySeconds", spec.get("minReadySeconds"))
    faults.nonnegative("spec.ordinals.start", (spec.get("ordinals") or {}).get("start"))
    _template(faults, _with_claims(spec), _selector(faults, spec, "statefulset"), "StatefulSet")


def _with_claims(spec: Object) -> Object:
    """The spec with the volumes in its template that its pods get from the claim templates."""
    template = spec.get("template") or {}
    inner = template.get("spec") or {}
    volumes = list(inner.get("volumes") or ())
    present = {each.get("name") for each in volumes}
    for claim in spec.get("volumeClaimTemplates") or ():
        name = (claim.get("metadata") or {}).get("name", "")
        if name not in present:
            volumes.append({"name": name, "persistentVolumeClaim": {"claimName": name}})
    return {**spec, "template": {**template, "spec": {**inner, "volumes": volumes}}} if volumes else spec


def _stateful_strategy(faults: Faults, strategy: Object) -> None:
    path, kind, rolling = "spec.updateStrategy", strategy.get("type", ""), strategy.get("rollingUpdate")
    if not kind:
        faults.required(path)
    elif kind == "OnDelete" and rolling is not None:
        shown = go(Partition=rolling.get("partition") or 0, MaxUnavailable=rolling.get("maxUnavailable"))
        faults.invalid(f"{path}.rollingUpdate", shown, "only allowed for updateStrategy 'RollingUpdate'")
    elif kind not in ("OnDelete", "RollingUpdate"):
        faults.invalid(path, go(Type=kind, RollingUpdate=rolling), "must be 'RollingUpdate' or 'OnDelete'")
    elif rolling is not None:
        faults.nonnegative(f"{path}.rollingUpdate.partition", rolling.get("partition"))
        if rolling.get("maxUnavailable") is not None:
            share(faults, f"{path}.rollingUpdate.maxUnavailable", rolling["maxUnavailable"])


def replication_controller(faults: Faults, obj: Object, _old: Object | None) -> None:
    spec = obj.get("spec") or {}
    faults.nonnegative("spec.minReadySeconds", spec.get("minReadySeconds"))
    selector = spec.get("selector") or {}
    if not selector:
        faults.required("spec.selector")
    faults.nonnegative("spec.replicas", spec.get("replicas"))
    if spec.get("template") is None:
        faults.required("spec.template")
        return
    _template(faults, spec, {"matchLabels": selector}, "ReplicationController")


def controller_revision(faults: Faults, obj: Object, old: Object | None) -> None:
    faults.nonnegative("revision", obj.get("revision"))
    if obj.get("data") is None:
        faults.required("data", "data is mandatory")
    if old is not None:
        faults.immutable("data", obj.get("data"), old.get("data"))


def pod_template_kind(faults: Faults, obj: Object, _old: Object | None) -> None:
    pod_template(faults, "template", obj.get("template") or {})


def replica_counts(faults: Faults, obj: Object) -> None:
    """The status of what replicates pods: no count beyond that of all pods."""
    status = obj.get("status") or {}
    for field in ("replicas", *_POD_COUNTS, "observedGeneration"):
        faults.nonnegative(f"status.{field}", status.get(field))
    counts = {field: status.get(field) or 0 for field in ("replicas", *_POD_COUNTS)}
    for field in _POD_COUNTS:
        if counts[field] > counts["replicas"]:
            faults.invalid(f"status.{field}", counts[field], "cannot be greater than status.replicas")
    if counts["availableReplicas"] > counts["readyReplicas"]:
        detail = "cannot be greater than readyReplicas"
        faults.invalid("status.availableReplicas", counts["availableReplicas"], detail)

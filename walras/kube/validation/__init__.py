"""Whether an object may be stored: Kubernetes' rules, a CRD's, Walras' own.

The faults carry Kubernetes' field paths, reasons and words (k8s.io/kubernetes/pkg/apis/*/validation, v1.36).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.core.errors import Cause, Invalid
from walras.kube import defaults, preparing
from walras.kube.registry import Resource
from walras.kube.validation import (
    access,
    core,
    cronjobs,
    definitions,
    devices,
    ephemeral,
    flow,
    jobs,
    limits,
    names,
    network,
    pods,
    policies,
    resize,
    scaling,
    services,
    serving,
    sets,
    small,
    storage,
    structural,
    walras,
    webhooks,
    workloads,
)
from walras.kube.validation.faults import Faults
from walras.kube.validation.metadata import metadata

Object = dict[str, Any]

__all__ = ["Faults", "invalid", "service_addresses", "validate"]

service_addresses = services.addresses

# As many faults as one answer lists.
CAUSES_MAX: Final = 100

_BUILTIN: Final[Mapping[str, Callable[[Faults, Object, Object | None], None]]] = {
    "pods": pods.pod,
    "configmaps": core.config_map,
    "secrets": core.secret,
    "namespaces": core.namespace,
    "endpoints": network.endpoints,
    "limitranges": limits.limit_range,
    "persistentvolumes": storage.volume,
    "podtemplates": sets.pod_template_kind,
    "replicationcontrollers": sets.replication_controller,
    "resourcequotas": limits.quota,
    "services": services.service,
    "persistentvolumeclaims": core.claim,
    "nodes": core.node,
    "events": small.event,
    "events.events.k8s.io": small.new_event,
    "apiservices.apiregistration.k8s.io": small.api_service,
    "controllerrevisions.apps": sets.controller_revision,
    "daemonsets.apps": sets.daemon_set,
    "statefulsets.apps": sets.stateful_set,
    "horizontalpodautoscalers.autoscaling": scaling.autoscaler,
    "poddisruptionbudgets.policy": scaling.budget,
    "cronjobs.batch": cronjobs.cron_job,
    "jobs.batch": jobs.job,
    "certificatesigningrequests.certificates.k8s.io": small.signing_request,
    "endpointslices.discovery.k8s.io": network.endpoint_slice,
    "ingresses.networking.k8s.io": network.ingress,
    "ingressclasses.networking.k8s.io": network.ingress_class,
    "ipaddresses.networking.k8s.io": network.address,
    "networkpolicies.networking.k8s.io": network.policy,
    "servicecidrs.networking.k8s.io": network.ranges,
    "csidrivers.storage.k8s.io": storage.driver,
    "csinodes.storage.k8s.io": storage.node_drivers,
    "csistoragecapacities.storage.k8s.io": storage.capacity,
    "storageclasses.storage.k8s.io": storage.storage_class,
    "volumeattachments.storage.k8s.io": storage.attachment,
    "volumeattributesclasses.storage.k8s.io": storage.attributes_class,
    "runtimeclasses.node.k8s.io": small.runtime_class,
    "deviceclasses.resource.k8s.io": devices.device_class,
    "resourceclaims.resource.k8s.io": devices.claim,
    "resourceclaimtemplates.resource.k8s.io": devices.template,
    "resourceslices.resource.k8s.io": devices.resource_slice,
    "flowschemas.flowcontrol.apiserver.k8s.io": flow.schema,
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": flow.level,
    "deployments.apps": workloads.deployment,
    "replicasets.apps": workloads.replica_set,
    "leases.coordination.k8s.io": core.lease,
    "priorityclasses.scheduling.k8s.io": core.priority_class,
    "customresourcedefinitions.apiextensions.k8s.io": definitions.definition,
    "roles.rbac.authorization.k8s.io": access.role,
    "clusterroles.rbac.authorization.k8s.io": access.cluster_role,
    "rolebindings.rbac.authorization.k8s.io": access.role_binding,
    "clusterrolebindings.rbac.authorization.k8s.io": access.cluster_role_binding,
    "mutatingadmissionpolicies.admissionregistration.k8s.io": policies.mutating_policy,
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": policies.binding,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": webhooks.webhooks,
    "validatingadmissionpolicies.admissionregistration.k8s.io": policies.validating_policy,
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": policies.binding,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": webhooks.webhooks,
}
_WALRAS: Final[Mapping[str, Callable[[Faults, Object], None]]] = {
    "agents.walras.dev": walras.agent,
    "pools.walras.dev": walras.pool,
    "bids.walras.dev": walras.bid,
    "gpuleases.walras.dev": walras.lease,
}
_KNATIVE: Final[Mapping[str, Callable[[Faults, Object, Object | None], None]]] = {
    "services.serving.knative.dev": serving.of_template,
    "configurations.serving.knative.dev": serving.of_template,
    "routes.serving.knative.dev": serving.route,
}
_NAMES: Final[Mapping[str, names.NameCheck]] = {
    "namespaces": names.dns_label,
    "services": names.dns_label,
    "statefulsets.apps": names.dns_label,
    "apiservices.apiregistration.k8s.io": access.path_segment,
    "csidrivers.storage.k8s.io": access.path_segment,
    "ipaddresses.networking.k8s.io": network.ip_name,
    "roles.rbac.authorization.k8s.io": access.path_segment,
    "clusterroles.rbac.authorization.k8s.io": access.path_segment,
    "rolebindings.rbac.authorization.k8s.io": access.path_segment,
    "clusterrolebindings.rbac.authorization.k8s.io": access.path_segment,
    "agents.walras.dev": walras.agent_name,
    "pools.walras.dev": walras.pool_name,
}
# Of subresources by which other parts change than by the object itself.
_BELOW: Final[Mapping[tuple[str, str], Callable[[Faults, Object, Object | None], None]]] = {
    ("pods", "ephemeralcontainers"): ephemeral.added,
    ("pods", "resize"): resize.resized,
}


def validate(
    resource: Resource,
    obj: Object,
    old: Object | None,
    served: Resource | None = None,
    subresource: str = "",
) -> list[Cause]:
    """What is wrong with the object, in the form that `fields.decode` and `defaults.apply` give it.

    `old` is the stored object on update, None on create; `served` the version that the request was made in,
    where that is another; `subresource` the one that is written. Empty when it may be stored.
    """
    faults = Faults()
    check = _NAMES.get(resource.key, names.dns_subdomain)
    metadata(faults, resource, obj, old, check)
    if resource.builtin:
        key = (served or resource).key
        rules = _BELOW.get((key, subresource)) or _BUILTIN.get(key)
        if rules is not None:
            rules(faults, obj, _completed(resource, obj, old))
    else:
        structural.validate(faults, resource.schema, obj, old, resource.scale)
        terms = _WALRAS.get(resource.key)
        if terms is not None:
            terms(faults, obj)
        asks = _KNATIVE.get(resource.key)
        if asks is not None:
            asks(faults, obj, old)
    return list(dict.fromkeys(faults))[:CAUSES_MAX]


def _completed(resource: Resource, obj: Object, old: Object | None) -> Object | None:
    """The stored object with today's defaults, so that none of them reads as a change."""
    if old is None or old.get("spec") == obj.get("spec"):
        return old
    old = copy.deepcopy(old)
    defaults.apply(resource, old)
    preparing.prepare(resource, old, old)
    return old


def invalid(resource: Resource, name: str, causes: list[Cause]) -> Invalid:
    """The error for an object's faults: 'Pod "x" is invalid: spec.containers: Required value'."""
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    said = [f"{cause.field}: {cause.message}" for cause in causes]
    text = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    details = {"name": name, "group": resource.group, "kind": resource.kind}
    details = {key: value for key, value in details.items() if value}
    return Invalid(f'{kind} "{name}" is invalid: {text}', causes=tuple(causes), details=details)

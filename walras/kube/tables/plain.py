"""The rows of the kinds that need little digesting."""

from __future__ import annotations

from typing import Any, Final

from walras.kube.tables.columns import (
    AGE,
    NAME,
    NONE,
    UNKNOWN,
    Column,
    Printer,
    age,
    labels_text,
    name,
    since,
    spec,
    status,
)

Object = dict[str, Any]

NAMESPACES: Final = Printer(
    (NAME, Column("Status", about="The status of the namespace."), AGE),
    lambda obj, now_ms: [name(obj), status(obj).get("phase", ""), age(obj, now_ms)],
)

CONFIG_MAPS: Final = Printer(
    (NAME, Column("Data", doc="core.v1.ConfigMap.data"), AGE),
    lambda obj, now_ms: [
        name(obj),
        len(obj.get("data") or ()) + len(obj.get("binaryData") or ()),
        age(obj, now_ms),
    ],
)

SECRETS: Final = Printer(
    (NAME, Column("Type", doc="core.v1.Secret.type"), Column("Data", doc="core.v1.Secret.data"), AGE),
    lambda obj, now_ms: [name(obj), obj.get("type", ""), len(obj.get("data") or ()), age(obj, now_ms)],
)

SERVICE_ACCOUNTS: Final = Printer((NAME, AGE), lambda obj, now_ms: [name(obj), age(obj, now_ms)])

LEASES: Final = Printer(
    (NAME, Column("Holder", doc="coordination.v1.LeaseSpec.holderIdentity"), AGE),
    lambda obj, now_ms: [name(obj), spec(obj).get("holderIdentity", ""), age(obj, now_ms)],
)

PRIORITY_CLASSES: Final = Printer(
    (
        NAME,
        Column("Value", "integer", doc="scheduling.v1.PriorityClass.value"),
        Column("Global-Default", "boolean", doc="scheduling.v1.PriorityClass.globalDefault"),
        AGE,
        Column("PreemptionPolicy", doc="scheduling.v1.PriorityClass.preemptionPolicy"),
    ),
    lambda obj, now_ms: [
        name(obj),
        obj.get("value", 0),
        bool(obj.get("globalDefault")),
        age(obj, now_ms),
        obj.get("preemptionPolicy", ""),
    ],
)

RESOURCE_SLICES: Final = Printer(
    (
        NAME,
        Column("Node", doc="resource.v1.ResourceSliceSpec.nodeName"),
        Column("Driver", doc="resource.v1.ResourceSliceSpec.driver"),
        Column("Pool", doc="resource.v1.ResourcePool.name"),
        AGE,
    ),
    lambda obj, now_ms: [
        name(obj),
        spec(obj).get("nodeName", ""),
        spec(obj).get("driver", ""),
        (spec(obj).get("pool") or {}).get("name", ""),
        age(obj, now_ms),
    ],
)

# Kinds without a printer of their own show when they were made as a time.
OTHERS: Final = Printer(
    (NAME, Column("Created At", "date", doc="meta.v1.ObjectMeta.creationTimestamp")),
    lambda obj, _now_ms: [name(obj), (obj.get("metadata") or {}).get("creationTimestamp", "")],
)


def _event(event: Object, now_ms: int) -> list[Any]:
    first = since(event.get("firstTimestamp") or event.get("eventTime"), now_ms)
    last = since(event["lastTimestamp"], now_ms) if event.get("lastTimestamp") else first
    count, series = event.get("count") or 1, event.get("series")
    if series is not None:
        last, count = since(series.get("lastObservedTime"), now_ms), series.get("count", 0)
    involved, source = event.get("involvedObject") or {}, event.get("source") or {}
    kind = involved.get("kind", "").lower()
    component = source.get("component") or event.get("reportingComponent", "")
    instance = source.get("host") or event.get("reportingInstance", "")
    return [
        last,
        event.get("type", ""),
        event.get("reason", ""),
        f"{kind}/{involved['name']}" if involved.get("name") else kind,
        involved.get("fieldPath", ""),
        f"{component}, {instance}" if instance else component,
        event.get("message", "").strip(),
        first,
        count,
        name(event),
    ]


EVENTS: Final = Printer(
    (
        Column("Last Seen", doc="core.v1.Event.lastTimestamp"),
        Column("Type", doc="core.v1.Event.type"),
        Column("Reason", doc="core.v1.Event.reason"),
        Column("Object", doc="core.v1.Event.involvedObject"),
        Column("Subobject", priority=1, doc="core.v1.ObjectReference.fieldPath"),
        Column("Source", priority=1, doc="core.v1.Event.source"),
        Column("Message", doc="core.v1.Event.message"),
        Column("First Seen", priority=1, doc="core.v1.Event.firstTimestamp"),
        Column("Count", priority=1, doc="core.v1.Event.count"),
        Column("Name", priority=1, doc="meta.v1.ObjectMeta.name", format="name"),
    ),
    _event,
)


def _external_ip(service: Object) -> str:
    external = list(spec(service).get("externalIPs") or ())
    match spec(service).get("type"):
        case "ClusterIP" | "NodePort":
            return ",".join(external) or NONE
        case "LoadBalancer":
            ingress = (status(service).get("loadBalancer") or {}).get("ingress") or ()
            points = {held.get("ip") or held.get("hostname", "") for held in ingress}
            return ",".join(sorted(points - {""}) + external) or "<pending>"
        case "ExternalName":
            return str(spec(service).get("externalName", ""))
    return UNKNOWN


def _port(port: Object) -> str:
    outside = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{outside}/{port.get('protocol', 'TCP')}"


def _service(service: Object, now_ms: int) -> list[Any]:
    ips = spec(service).get("clusterIPs") or (spec(service).get("clusterIP"),)
    return [
        name(service),
        spec(service).get("type", ""),
        ips[0] or NONE,
        _external_ip(service),
        ",".join(map(_port, spec(service).get("ports") or ())) or NONE,
        age(service, now_ms),
        labels_text(spec(service).get("selector")),
    ]


SERVICES: Final = Printer(
    (
        NAME,
        Column("Type", doc="core.v1.ServiceSpec.type"),
        Column("Cluster-IP", doc="core.v1.ServiceSpec.clusterIP"),
        Column("External-IP", doc="core.v1.ServiceSpec.externalIPs"),
        Column("Port(s)", doc="core.v1.ServiceSpec.ports"),
        AGE,
        Column("Selector", priority=1, doc="core.v1.ServiceSpec.selector"),
    ),
    _service,
)

_MODES: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_CLASS_ANNOTATION: Final = "volume.beta.kubernetes.io/storage-class"
_UNSET: Final = "<unset>"


def _claim(claim: Object, now_ms: int) -> list[Any]:
    metadata, wants, has = claim.get("metadata") or {}, spec(claim), status(claim)
    bound = bool(wants.get("volumeName"))
    held = has.get("accessModes") or () if bound else ()
    storage_class = (metadata.get("annotations") or {}).get(_CLASS_ANNOTATION)
    return [
        name(claim),
        "Terminating" if metadata.get("deletionTimestamp") else has.get("phase", ""),
        wants.get("volumeName", ""),
        str((has.get("capacity") or {}).get("storage", "0")) if bound else "",
        ",".join(short for mode, short in _MODES.items() if mode in held),
        wants.get("storageClassName", "") if storage_class is None else storage_class,
        wants.get("volumeAttributesClassName") or _UNSET,
        age(claim, now_ms),
        wants.get("volumeMode") or _UNSET,
    ]


CLAIMS: Final = Printer(
    (
        NAME,
        Column("Status", doc="core.v1.PersistentVolumeClaimStatus.phase"),
        Column("Volume", doc="core.v1.PersistentVolumeClaimSpec.volumeName"),
        Column("Capacity", doc="core.v1.PersistentVolumeClaimStatus.capacity"),
        Column("Access Modes", doc="core.v1.PersistentVolumeClaimStatus.accessModes"),
        Column("StorageClass", doc="core.v1.PersistentVolumeClaimSpec.storageClassName"),
        Column("VolumeAttributesClass", doc="core.v1.PersistentVolumeClaimSpec.volumeAttributesClassName"),
        AGE,
        Column("VolumeMode", priority=1, doc="core.v1.PersistentVolumeClaimSpec.volumeMode"),
    ),
    _claim,
)

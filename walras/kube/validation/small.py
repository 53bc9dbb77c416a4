"""Events, signing requests, runtime classes and API services: rules of their packages' validation."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from cryptography import x509

from walras.core.quantity import parse_milli
from walras.kube.validation import names
from walras.kube.validation.faults import Faults
from walras.kube.validation.metadata import check_labels

Object = Mapping[str, Any]

_USAGES: Final = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system",
    "ipsec tunnel", "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc",
    "ocsp signing", "s/mime", "server auth", "signing", "timestamping",
)  # fmt: skip
_SECONDS_MIN: Final = 600
_FIXED: Final = (
    "involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "type",
    "eventTime", "action", "related", "reportingComponent", "reportingInstance",
)  # fmt: skip
_LENGTHS: Final = (("action", 128), ("reason", 128), ("message", 1024))


def event(faults: Faults, obj: Object, _old: Object | None) -> None:
    """A core/v1 Event; one with eventTime is of the newer kind."""
    _event(faults, obj, "reportingComponent")


def _event(faults: Faults, obj: Object, controller: str) -> None:
    involved = (obj.get("involvedObject") or {}).get("namespace") or ""
    own = (obj.get("metadata") or {}).get("namespace", "")
    path = "involvedObject.namespace"
    if not obj.get("eventTime"):
        # Events of cluster-scoped objects live in "default".
        if involved != own if involved else own not in ("", "default"):
            faults.invalid(path, involved, "does not match event.namespace")
        return
    if not involved and own not in ("default", "kube-system"):
        faults.invalid(path, involved, "does not match event.namespace")
    who, instance = obj.get("reportingComponent") or "", obj.get("reportingInstance") or ""
    if not who:
        faults.required(controller)
    faults.each(controller, who, names.qualified_name(who))
    if not instance:
        faults.required("reportingInstance")
    if len(instance) > 128:
        faults.invalid("reportingInstance", "", "can have at most 128 characters")
    for field, most in _LENGTHS:
        text = obj.get(field) or ""
        if not text and field != "message":
            faults.required(field)
        if len(text) > most:
            faults.invalid(field, "", f"can have at most {most} characters")


def new_event(faults: Faults, obj: Object, old: Object | None) -> None:
    """An events.k8s.io/v1 Event, in the form in which it is stored."""
    _event(faults, obj, "reportingController")
    if old is None or obj.get("series") != old.get("series"):
        _series(faults, obj)
    if old is not None:
        for field in _FIXED:
            shown = "reportingController" if field == "reportingComponent" else field
            faults.immutable(shown, obj.get(field), old.get(field))
        return
    if not obj.get("eventTime"):
        faults.required("eventTime")
    if obj.get("type") not in ("Normal", "Warning"):
        faults.invalid("type", "", f"has invalid value: {obj.get('type') or ''}")
    for field in ("firstTimestamp", "lastTimestamp", "count", "source"):
        if obj.get(field):
            faults.invalid(field, "", "needs to be unset")


def _series(faults: Faults, obj: Object) -> None:
    series = obj.get("series")
    if series is None:
        return
    if (series.get("count") or 0) < 2:
        faults.invalid("series.count", "", "should be at least 2")
    if not series.get("lastObservedTime"):
        faults.required("series.lastObservedTime")


def signing_request(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    if old is None:
        _request(faults, "spec.request", spec.get("request") or "")
    usages = spec.get("usages") or ()
    if not usages:
        faults.required("spec.usages")
    for index, usage in enumerate(usages):
        if usage not in _USAGES:
            faults.not_supported(f"spec.usages[{index}]", usage, _USAGES)
        if usage in usages[:index]:
            faults.duplicate(f"spec.usages[{index}]", usage)
    _signer(faults, "spec.signerName", spec.get("signerName") or "")
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _SECONDS_MIN:
        detail = "may not specify a duration less than 600 seconds (10 minutes)"
        faults.invalid("spec.expirationSeconds", seconds, detail)
    status = obj.get("status") or {}
    _conditions(faults, status.get("conditions") or ())
    certificate = status.get("certificate")
    if certificate and certificate != ((old or {}).get("status") or {}).get("certificate"):
        _certificate(faults, "status.certificate", certificate)


def _pem(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _request(faults: Faults, path: str, text: str) -> None:
    data = _pem(text)
    try:
        if b"-----BEGIN CERTIFICATE REQUEST-----" not in data:
            raise ValueError("PEM block type must be CERTIFICATE REQUEST")
        x509.load_pem_x509_csr(data)
    except ValueError as error:
        faults.invalid(path, text, str(error))


def _certificate(faults: Faults, path: str, text: str) -> None:
    data = _pem(text)
    if b"-----BEGIN CERTIFICATE-----" not in data:
        faults.invalid(path, "<certificate data>", "must contain at least one CERTIFICATE PEM block")
        return
    try:
        x509.load_pem_x509_certificates(data)
    except ValueError as error:
        faults.invalid(path, "<certificate data>", str(error))


def _signer(faults: Faults, path: str, name: str) -> None:
    domain, slash, rest = name.partition("/")
    if not name:
        faults.required(path)
        return
    if not slash or "/" in rest:
        detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        faults.invalid(path, name, detail)
        return
    if names.dns_subdomain(domain):
        faults.each(path, domain, names.dns_subdomain(domain))
    elif "." not in domain:
        faults.invalid(path, domain, "should be a domain with at least two segments separated by dots")
    faults.each(path, rest, names.dns_subdomain(rest))


def _conditions(faults: Faults, conditions: Any) -> None:
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        path, kind = f"status.conditions[{index}]", condition.get("type") or ""
        if not kind:
            faults.required(f"{path}.type")
        state = condition.get("status") or ""
        if kind in ("Approved", "Denied", "Failed"):
            faults.one_of(f"{path}.status", state, ("True",))
        else:
            faults.one_of(f"{path}.status", state, ("False", "True", "Unknown"))
        if kind in seen:
            faults.duplicate(f"{path}.type", kind)
        seen.add(kind)
    if {"Approved", "Denied"} <= seen:
        faults.invalid("status.conditions", "Denied", "Approved and Denied conditions are mutually exclusive")


def runtime_class(faults: Faults, obj: Object, old: Object | None) -> None:
    handler = obj.get("handler") or ""
    if old is not None:
        faults.immutable("handler", handler, old.get("handler"))
    else:
        faults.each("handler", handler, names.dns_label(handler))
    for name, amount in sorted(((obj.get("overhead") or {}).get("podFixed") or {}).items()):
        if parse_milli(amount) < 0:
            faults.invalid(f"overhead.limits[{name}]", amount, "must be greater than or equal to 0")
    check_labels(faults, "scheduling.nodeSelector", (obj.get("scheduling") or {}).get("nodeSelector"))


def api_service(faults: Faults, obj: Object, _old: Object | None) -> None:
    spec, name = obj.get("spec") or {}, obj["metadata"].get("name", "")
    group, version, service = spec.get("group") or "", spec.get("version") or "", spec.get("service")
    if name != f"{version}.{group}":
        detail = f'must be `spec.version+"."+spec.group`: "{version}.{group}"'
        faults.invalid("metadata.name", name, detail)
    if group:
        faults.each("spec.group", group, names.dns_subdomain(group))
    elif version != "v1":
        faults.required("spec.group", "only v1 may have an empty group and it better be legacy kube")
    faults.each("spec.version", version, names.dns1035_label(version))
    for field, most in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        value = spec.get(field) or 0
        if not 0 < value <= most:
            faults.invalid(f"spec.{field}", value, f"must be positive and less than {most}")
    if service is None:
        if spec.get("caBundle"):
            faults.invalid("spec.caBundle", "<value omitted>", "local APIServices may not have a caBundle")
        if spec.get("insecureSkipTLSVerify"):
            detail = "local APIServices may not have insecureSkipTLSVerify"
            faults.invalid("spec.insecureSkipTLSVerify", True, detail)
        return
    for field in ("namespace", "name"):
        if not service.get(field):
            faults.required(f"spec.service.{field}")
    if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
        detail = "may not be true if caBundle is present"
        faults.invalid("spec.insecureSkipTLSVerify", True, detail)

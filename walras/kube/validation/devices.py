"""Device classes, claims, templates and slices: rules of pkg/apis/resource/validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.core.quantity import parse_milli
from walras.kube.validation import names
from walras.kube.validation.faults import Faults
from walras.kube.validation.selectors import Selectors

Object = Mapping[str, Any]

_MODES: Final = ("All", "ExactCount")
_ITEMS_MAX: Final = 32
_DEVICES_MAX: Final = 128
_ATTRIBUTES_MAX: Final = 32
_VALUES: Final = ("int", "bool", "string", "version", "ints", "bools", "strings", "versions")
_PLACES: Final = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")


def device_class(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    same = old is not None and spec.get("selectors") == (old.get("spec") or {}).get("selectors")
    _selectors(faults, "spec.selectors", spec.get("selectors") or (), None if same else Selectors())
    for index, config in enumerate(spec.get("config") or ()):
        _config(faults, f"spec.config[{index}]", config)


def _selectors(faults: Faults, path: str, selectors: Any, compiled: Selectors | None) -> None:
    """`compiled` are those of the object so far; None where they are what was there before."""
    if len(selectors) > _ITEMS_MAX:
        faults.too_many(path, len(selectors), _ITEMS_MAX)
    for index, selector in enumerate(selectors):
        if selector.get("cel") is None:
            faults.required(f"{path}[{index}].cel")
        elif not selector["cel"].get("expression"):
            faults.required(f"{path}[{index}].cel.expression")
        elif compiled is not None and index < _ITEMS_MAX:
            compiled.check(faults, f"{path}[{index}].cel.expression", selector["cel"]["expression"])


def _config(faults: Faults, path: str, config: Object) -> None:
    opaque = config.get("opaque")
    if opaque is None:
        faults.required(f"{path}.opaque")
        return
    driver(faults, f"{path}.opaque.driver", opaque.get("driver") or "")
    if opaque.get("parameters") is None:
        faults.required(f"{path}.opaque.parameters")
    elif not isinstance(opaque["parameters"], dict):
        faults.invalid(f"{path}.opaque.parameters", "<value omitted>", "must be a valid JSON object")


def driver(faults: Faults, path: str, name: str) -> None:
    if not name:
        faults.required(path)
    if len(name) > 63:
        faults.too_long(path, 63)
    if name:
        faults.each(path, name, names.dns_subdomain(name))


def claim(faults: Faults, obj: Object, old: Object | None) -> None:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    _claim_spec(faults, "spec", spec, Selectors() if old is None else None)
    if old is not None:
        faults.immutable("spec", spec, old.get("spec") or {})
        if status.get("reservedFor") and status.get("allocation") is None:
            faults.forbidden("status.reservedFor", "may not be specified when `allocated` is not set")


def template(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    _claim_spec(faults, "spec.spec", spec.get("spec") or {}, Selectors() if old is None else None)
    if old is not None:
        faults.immutable("spec", spec, old.get("spec") or {})


def _claim_spec(faults: Faults, path: str, spec: Object, compiled: Selectors | None) -> None:
    devices = spec.get("devices") or {}
    path = f"{path}.devices"
    requests: list[Object] = list(devices.get("requests") or ())
    if len(requests) > _ITEMS_MAX:
        faults.too_many(f"{path}.requests", len(requests), _ITEMS_MAX)
    known: set[str] = set()
    for index, request in enumerate(requests):
        at, name = f"{path}.requests[{index}]", request.get("name") or ""
        if name in known:
            faults.duplicate(at, name)
        _request(faults, at, request, compiled)
        known.add(name)
        known |= {f"{name}/{sub.get('name')}" for sub in request.get("firstAvailable") or ()}
    for index, constraint in enumerate(devices.get("constraints") or ()):
        at = f"{path}.constraints[{index}]"
        _references(faults, f"{at}.requests", constraint.get("requests") or (), known)
        if constraint.get("matchAttribute") is None and constraint.get("distinctAttribute") is None:
            detail = 'exactly one of "matchAttribute" or "distinctAttribute" is required'
            faults.required(at, f"{detail}, but multiple fields are set")
    for index, config in enumerate(devices.get("config") or ()):
        _references(faults, f"{path}.config[{index}].requests", config.get("requests") or (), known)
        _config(faults, f"{path}.config[{index}]", config)


def _references(faults: Faults, path: str, given: Any, known: set[str]) -> None:
    for index, name in enumerate(given):
        if name not in known:
            detail = (
                "must be the name of a request in the claim or the name of a request and a subrequest "
                "separated by '/'"
            )
            faults.invalid(f"{path}[{index}]", name, detail)


def _request(faults: Faults, path: str, request: Object, compiled: Selectors | None) -> None:
    name, exactly, first = request.get("name") or "", request.get("exactly"), request.get("firstAvailable")
    if not name:
        faults.required(f"{path}.name")
    else:
        faults.each(f"{path}.name", name, names.dns_label(name))
    if exactly is None and not first:
        faults.required(path, "exactly one of `exactly` or `firstAvailable` is required")
    elif exactly is not None and first:
        faults.invalid(path, None, "exactly one of `exactly` or `firstAvailable` is required, but multiple "
                       "fields are set")  # fmt: skip
    if exactly is not None:
        _amount(faults, f"{path}.exactly", exactly, compiled)
    for index, sub in enumerate(first or ()):
        at, sub_name = f"{path}.firstAvailable[{index}]", sub.get("name") or ""
        faults.each(f"{at}.name", sub_name, names.dns_label(sub_name))
        _amount(faults, at, sub, compiled)


def _amount(faults: Faults, path: str, request: Object, compiled: Selectors | None) -> None:
    kind, mode, count = (
        request.get("deviceClassName") or "",
        request.get("allocationMode") or "",
        request.get("count"),
    )
    if not kind:
        faults.required(f"{path}.deviceClassName")
    else:
        faults.each(f"{path}.deviceClassName", kind, names.dns_subdomain(kind))
    _selectors(faults, f"{path}.selectors", request.get("selectors") or (), compiled)
    if mode == "All" and count:
        faults.invalid(f"{path}.count", count, "must not be specified when allocationMode is 'All'")
    elif mode == "ExactCount" and (count or 0) <= 0:
        faults.invalid(f"{path}.count", count or 0, "must be greater than zero")
    elif mode not in _MODES:
        faults.not_supported(f"{path}.allocationMode", mode, _MODES)


def resource_slice(faults: Faults, obj: Object, old: Object | None) -> None:
    spec, was = obj.get("spec") or {}, (old or {}).get("spec") or {}
    pool = spec.get("pool") or {}
    if old is not None:
        faults.immutable("spec.driver", spec.get("driver"), was.get("driver"))
        faults.immutable("spec.pool.name", pool.get("name"), (was.get("pool") or {}).get("name"))
        for field in ("nodeName", "nodeSelector", "allNodes"):
            faults.immutable(f"spec.{field}", spec.get(field), was.get(field))
    driver(faults, "spec.driver", spec.get("driver") or "")
    _pool(faults, pool)
    places = [field for field in _PLACES if spec.get(field)]
    if len(places) != 1:
        listed = ", ".join(f"`{field}`" for field in _PLACES)
        if not places:
            faults.required("spec", f"exactly one of {listed} is required")
        else:
            shown = "{" + ", ".join(f"`{field}`" for field in places) + "}"
            faults.invalid("spec", shown, f"exactly one of {listed} is required, but multiple fields are set")
    devices: list[Object] = list(spec.get("devices") or ())
    if len(devices) > _DEVICES_MAX:
        faults.too_many("spec.devices", len(devices), _DEVICES_MAX)
    seen: set[str] = set()
    for index, device in enumerate(devices):
        _device(faults, f"spec.devices[{index}]", device, seen)


def _pool(faults: Faults, pool: Object) -> None:
    name = pool.get("name") or ""
    if not name:
        faults.required("spec.pool.name")
    else:
        if len(name) > 253:
            faults.too_long("spec.pool.name", 253)
        for part in name.split("/"):
            faults.each("spec.pool.name", part, names.dns_subdomain(part))
    if (pool.get("resourceSliceCount") or 0) <= 0:
        count = pool.get("resourceSliceCount") or 0
        faults.invalid("spec.pool.resourceSliceCount", count, "must be greater than zero")
    if (pool.get("generation") or 0) < 0:
        faults.invalid("spec.pool.generation", pool["generation"], "must be greater than or equal to zero")


def _device(faults: Faults, path: str, device: Object, seen: set[str]) -> None:
    name = device.get("name") or ""
    faults.each(f"{path}.name", name, names.dns_label(name))
    if name in seen:
        faults.duplicate(path, name)
    seen.add(name)
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    for key, value in sorted(attributes.items()):
        _qualified(faults, f"{path}.attributes", key)
        held = [kind for kind in _VALUES if value.get(kind) is not None]
        if not held:
            faults.required(f"{path}.attributes[{key}]", "exactly one value must be specified")
        elif len(held) > 1:
            faults.invalid(f"{path}.attributes[{key}]", value, "exactly one value must be specified")
    for key, amount in sorted(capacity.items()):
        _qualified(faults, f"{path}.capacity", key)
        if parse_milli(amount.get("value", "0")) < 0:
            faults.invalid(
                f"{path}.capacity[{key}].value", amount["value"], "must be greater than or equal to 0"
            )
    if len(attributes) + len(capacity) > _ATTRIBUTES_MAX:
        total = len(attributes) + len(capacity)
        detail = f"the total number of attributes and capacities must not exceed {_ATTRIBUTES_MAX}"
        faults.invalid(path, total, detail)


def _qualified(faults: Faults, path: str, key: str) -> None:
    domain, slash, name = key.rpartition("/")
    if slash:
        faults.each(path, domain, names.dns_subdomain(domain))
    if not name:
        faults.required(path, "name required")
    else:
        faults.each(path, name, names.c_identifier(name))

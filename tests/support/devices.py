"""Devices, classes and claims to test allocation with."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

DRIVER = "gpu.example.com"


def device(name: str, **said: Any) -> Object:
    """`attributes` and `capacity` in short: values of Python, amounts as text."""
    attributes = {key: _value(value) for key, value in said.pop("attributes", {}).items()}
    capacity = {
        key: {"value": value} if isinstance(value, str) else value
        for key, value in said.pop("capacity", {}).items()
    }
    return {"name": name, "attributes": attributes, "capacity": capacity, **said}


def _value(value: Any) -> Object:
    if isinstance(value, dict):
        return value
    if isinstance(value, bool):
        return {"bool": value}
    return {"int": value} if isinstance(value, int) else {"string": value}


def device_slice(node: str, *devices: Object, driver: str = DRIVER, **spec: Any) -> Object:
    """The only slice of a node's pool."""
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    return {
        "metadata": {"name": f"{node}-{driver}"},
        "spec": {"driver": driver, "pool": pool, "nodeName": node, "devices": list(devices), **spec},
    }


def device_class(name: str = "gpu", *expressions: str, **spec: Any) -> Object:
    selectors = [{"cel": {"expression": each}} for each in expressions]
    return {"metadata": {"name": name}, "spec": {"selectors": selectors, **spec}}


def request(name: str = "gpu", *expressions: str, **said: Any) -> Object:
    return {"name": name, "exactly": exactly(*expressions, **said)}


def exactly(*expressions: str, **said: Any) -> Object:
    selectors = [{"cel": {"expression": each}} for each in expressions]
    found = {"deviceClassName": "gpu", "allocationMode": "ExactCount", **said}
    if found["allocationMode"] == "ExactCount":
        found.setdefault("count", 1)
    return {**found, **({"selectors": selectors} if selectors else {})}


def claim_spec(*requests: Object, **devices: Any) -> Object:
    return {"devices": {"requests": list(requests), **devices}}


def claim(name: str, *requests: Object, namespace: str = "default", **devices: Any) -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": claim_spec(*requests, **devices)}


def template(name: str, *requests: Object, **devices: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"spec": claim_spec(*requests, **devices)}}


def given(claimed: Object) -> list[str]:
    """The names of the devices that a claim holds."""
    results = ((claimed.get("status") or {}).get("allocation") or {}).get("devices", {}).get("results", [])
    return [each["device"] for each in results]

"""Devices and claims from a seed, for the real scheduler and ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from support.devices import DRIVER, device, exactly

Object = dict[str, Any]
# In this attribute the devices of a case differ from those of all others.
CASE: Final = f"device.attributes['{DRIVER}'].case"


@dataclass
class Case:
    """A node of its own with devices, and pods by the claims that each names, in the order of their turns."""

    number: int
    devices: list[Object] = field(default_factory=list)
    counters: list[Object] = field(default_factory=list)
    claims: list[list[Object]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"case-{self.number}"

    def node(self) -> Object:
        capacity = {"cpu": "8", "memory": "8Gi", "pods": "16"}
        labels = {"kubernetes.io/hostname": self.name}
        ready = {"type": "Ready", "status": "True", "reason": "Test", "message": "test"}
        return {
            "metadata": {"name": self.name, "labels": labels},
            "status": {"capacity": capacity, "allocatable": capacity, "conditions": [ready]},
        }

    def slices(self) -> list[Object]:
        pool = {"name": self.name, "generation": 1, "resourceSliceCount": 2 if self.counters else 1}
        alike = {"driver": DRIVER, "pool": pool, "nodeName": self.name}
        parts = [{"devices": self.devices}, *([{"sharedCounters": self.counters}] if self.counters else ())]
        return [
            {"metadata": {"name": f"{self.name}-{at}"}, "spec": {**alike, **part}}
            for at, part in enumerate(parts)
        ]

    def device_class(self) -> Object:
        opaque = {"driver": DRIVER, "parameters": {"of": "class"}}
        selectors = [{"cel": {"expression": f"{CASE} == {self.number}"}}]
        spec = {"selectors": selectors, "config": [{"opaque": opaque}]}
        return {"metadata": {"name": self.name}, "spec": spec}

    def pod(self, turn: int) -> Object:
        claims = [each["metadata"]["name"] for each in self.claims[turn]]
        spec = {
            "containers": [{"name": "main", "image": "none"}],
            "nodeSelector": {"kubernetes.io/hostname": self.name},
            "tolerations": [{"operator": "Exists"}],
            "resourceClaims": [{"name": each, "resourceClaimName": each} for each in claims],
        }
        return {"metadata": {"name": f"{self.name}-pod-{turn}", "namespace": "default"}, "spec": spec}


def generate(number: int, seed: str) -> Case:
    """The case of that number of a seed, always the same."""
    draw = Random(f"{seed}-{number}")
    case = Case(number)
    partitioned = draw.random() < 0.3
    case.devices = [_device(draw, number, at, partitioned) for at in range(draw.randint(1, 6))]
    if partitioned:
        amount = str(draw.randint(2, 6))
        case.counters = [{"name": "set", "counters": {"slices": {"value": amount}}}]
    for turn in range(2):
        claims = [_claim(draw, case.name, f"{turn}-{at}") for at in range(draw.randint(1, 2))]
        case.claims.append(claims)
    return case


def _device(draw: Random, number: int, at: int, partitioned: bool) -> Object:
    attributes: Object = {"case": number, "colour": draw.choice(("red", "blue")), "at": at}
    if draw.random() < 0.8:
        attributes["zone"] = draw.randint(0, 2)
    attributes["level"] = {"version": f"{draw.randint(1, 3)}.0.0"}
    said: Object = {}
    memory: Object = {"value": f"{draw.randint(1, 4)}Gi"}
    if draw.random() < 0.4:
        said["allowMultipleAllocations"] = True
        memory["requestPolicy"] = draw.choice((
            {"default": "1Gi", "validRange": {"min": "1Gi"}},
            {"default": "512Mi", "validRange": {"min": "512Mi", "step": "256Mi"}},
            {"default": "1Gi", "validValues": ["512Mi", "1Gi"]},
        ))  # fmt: skip
        if "validValues" not in memory["requestPolicy"] and memory["value"] == "1Gi":
            memory["value"] = "2Gi"
    if draw.random() < 0.15:
        said["taints"] = [{"key": "sick", "value": "yes", "effect": draw.choice(("NoSchedule", "None"))}]
    if partitioned and draw.random() < 0.8:
        amount = {"slices": {"value": str(draw.randint(1, 3))}}
        said["consumesCounters"] = [{"counterSet": "set", "counters": amount}]
    return device(f"d{at}", attributes=attributes, capacity={"memory": memory}, **said)


def _claim(draw: Random, case: str, name: str) -> Object:
    requests: list[Object] = []
    for at in range(draw.randint(1, 2)):
        if draw.random() < 0.3:
            first = [{"name": f"s{each}", **_ask(draw, case)} for each in range(draw.randint(1, 3))]
            requests.append({"name": f"r{at}", "firstAvailable": first})
        else:
            requests.append({"name": f"r{at}", "exactly": _ask(draw, case)})
    constraints = []
    # The real one forgets values of a request with several devices when it goes back from one of them.
    single = all(each.get("exactly", {}).get("count") == 1 for each in requests)
    if draw.random() < 0.4:
        kind = draw.choice(("matchAttribute", "distinctAttribute") if single else ("matchAttribute",))
        named = {"requests": ["r0"]} if draw.random() < 0.3 else {}
        constraints.append({kind: f"{DRIVER}/{draw.choice(('zone', 'colour'))}", **named})
    opaque = {"driver": DRIVER, "parameters": {"of": name}}
    config = [{"requests": ["r0"], "opaque": opaque}] if draw.random() < 0.3 else []
    devices = {"requests": requests, "constraints": constraints, "config": config}
    return {
        "metadata": {"name": f"{case}-claim-{name}", "namespace": "default"},
        "spec": {"devices": {key: value for key, value in devices.items() if value}},
    }


def _ask(draw: Random, case: str) -> Object:
    said: Object = {"deviceClassName": case}
    if draw.random() < 0.15:
        said["allocationMode"] = "All"
    else:
        said["count"] = draw.choice((1, 1, 1, 2, 3))
    if draw.random() < 0.4:
        amount = draw.choice(("256Mi", "512Mi", "700Mi", "1Gi", "1536Mi", "3Gi"))
        said["capacity"] = {"requests": {draw.choice(("memory",) * 9 + ("cores",)): amount}}
    if draw.random() < 0.2:
        said["tolerations"] = [draw.choice((
            {"operator": "Exists"},
            {"key": "sick", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
            {"key": "well", "operator": "Exists"},
        ))]  # fmt: skip
    attribute = f"device.attributes['{DRIVER}']"
    expressions = {
        "": 6,
        f"{attribute}.colour == 'red'": 2,
        f"{attribute}.level.isGreaterThan(semver('1.5.0'))": 2,
        f"device.capacity['{DRIVER}'].memory.compareTo(quantity('2Gi')) >= 0": 1,
        "device.allowMultipleAllocations": 1,
        f"'zone' in {attribute} && {attribute}.zone > 0": 1,
        f"{attribute}.zone == 1": 1,
        "'x' in device.attributes['other.com']": 1,
    }
    (expression,) = draw.choices(list(expressions), list(expressions.values()))
    return exactly(*([expression] if expression else []), **said)

"""`walras device`: what keeps devices off the market, and how they return to it."""

from __future__ import annotations

import copy

from support.command import Fake, Object, Walras

SLICES = "/clusters/fleet/apis/resource.k8s.io/v1/resourceslices"
FAILED = {
    "key": "gpu.walras.dev/failed", "value": "Xid79", "effect": "NoExecute",
    "timeAdded": "2026-01-01T00:00:00Z",
}  # fmt: skip


def a_device(name: str, kind: str = "gpu", *taints: Object) -> Object:
    return {
        "name": name,
        "attributes": {
            "type": {"string": kind},
            "productName": {"string": "NVIDIA H100"},
            "uuid": {"string": f"GPU-{name}"},
        },
        "capacity": {"memory": {"value": "81559Mi"}},
        **({"taints": list(taints)} if taints else {}),
    }


SLICE: Object = {
    "metadata": {"name": "local-gpus", "resourceVersion": "7"},
    "spec": {
        "nodeName": "local",
        "devices": [
            a_device("gpu-0"),
            a_device("gpu-1", "gpu", FAILED),
            a_device("gpu-1-mig-1g10gb-0", "mig"),
        ],
    },
}
COUNTERS: Object = {
    "metadata": {"name": "local-counters-0"},
    "spec": {"nodeName": "local", "sharedCounters": []},
}


def test_devices_are_listed_with_what_keeps_them_off_the_market(fake: Fake, walras: Walras) -> None:
    fake.says("GET", SLICES, {"items": [SLICE, COUNTERS]})
    lines = walras.ok("device", "list").splitlines()
    assert [line.split()[0] for line in lines] == ["DEVICE", "local/gpu-0", "local/gpu-1"]
    assert "Sold" in lines[1] and "Off" not in lines[1]
    assert "Off" in lines[2] and "Xid79" in lines[2]
    assert "GPU-gpu-1" in walras.ok("device", "list", "-o", "wide")
    assert '"id":"local/gpu-0"' in walras.ok("device", "list", "-o", "json").replace(" ", "")


def test_a_device_returns_without_the_taints_that_kept_it_off_and_with_all_others(
    fake: Fake, walras: Walras
) -> None:
    harmless = {"key": "example.com/note", "effect": "None"}
    found = copy.deepcopy(SLICE)
    found["spec"]["devices"][1]["taints"].append(harmless)
    fake.says("GET", SLICES, {"items": [found]})
    fake.says("PUT", f"{SLICES}/local-gpus", found)
    assert "on the market again" in walras.ok("device", "return", "local/gpu-1")
    method, _, _, sent, _ = fake.requests[-1]
    assert method == "PUT"
    assert [device.get("taints") for device in sent["spec"]["devices"]] == [None, [harmless], None]
    assert sent["metadata"]["resourceVersion"] == "7", "what changed meanwhile is not lost"


def test_a_device_that_is_sold_is_left_alone_and_one_that_is_not_there_is_named(
    fake: Fake, walras: Walras
) -> None:
    fake.says("GET", SLICES, {"items": [SLICE]})
    assert "on the market already" in walras.ok("device", "return", "local/gpu-0")
    assert all(method == "GET" for method, *_ in fake.requests)
    said = walras.fails("device", "return", "local/gpu-9")
    assert 'no device "local/gpu-9"; there are local/gpu-0, local/gpu-1' in said

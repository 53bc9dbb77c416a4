"""What pods ask of GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from walras.core.errors import Invalid
from walras.devices.request import GpuRequest, capacity, gpu_request, is_gpu_resource, mig_resource


def pod(*limits: dict[str, Any]) -> dict[str, Any]:
    return {"containers": [{"name": f"c{i}", "resources": {"limits": each}} for i, each in enumerate(limits)]}


@pytest.mark.parametrize(
    ("limits", "request_"),
    [
        ({"nvidia.com/gpu": 2}, GpuRequest(2, 1000)),
        ({"nvidia.com/gpu": 2, "walras.dev/gpu-memory-mib": 10001}, GpuRequest(2, 1000, 5001)),
        ({"walras.dev/milligpu": "250", "walras.dev/gpu-memory-mib": 4096}, GpuRequest(1, 250, 4096)),
        ({"walras.dev/milligpu": 3000}, GpuRequest(3, 1000)),
        ({"nvidia.com/mig-1g.10gb": 1}, GpuRequest(1, 143, 9728, "1g.10gb")),
        ({"nvidia.com/mig-1g.10gb.me": "1"}, GpuRequest(1, 143, 9728, "1g.10gb+me")),
        ({"nvidia.com/mig-2g.12gb": 3}, GpuRequest(3, 500, 11672, "2g.12gb")),
        ({"nvidia.com/mig-1g.10gb": 0, "nvidia.com/gpu": 1}, GpuRequest(1, 1000)),
        ({"nvidia.com/mig-1g.10gb": 0}, None),
        ({"cpu": "2"}, None),
    ],
)
def test_limits_become_a_request(limits: dict[str, Any], request_: GpuRequest | None) -> None:
    assert gpu_request(pod(limits)) == request_


def test_containers_ask_together() -> None:
    assert gpu_request(pod({"walras.dev/milligpu": 300}, {"walras.dev/milligpu": 400})) == GpuRequest(1, 700)
    one = {"nvidia.com/mig-1g.5gb": 1}
    assert gpu_request(pod(one, one)) == GpuRequest(2, 143, 4864, "1g.5gb")
    assert gpu_request({}) is None
    assert gpu_request({"containers": [{"name": "c"}]}) is None


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"nvidia.com/gpu": 1, "walras.dev/milligpu": 100}, "not both"),
        ({"walras.dev/milligpu": 1500}, "no whole number of devices"),
        ({"walras.dev/gpu-memory-mib": 1}, "needs walras.dev/milligpu or nvidia.com/gpu beside it"),
        ({"nvidia.com/gpu": -1}, "must not be negative"),
        ({"nvidia.com/mig-1g.5gb": -1}, "must not be negative"),
        ({"nvidia.com/gpu": 1025}, "1025 devices are more than the 1024"),
        ({"nvidia.com/mig-1g.5gb": 1025}, "1025 devices are more than the 1024"),
        ({"nvidia.com/mig-8g.5gb": 1}, '"8g.5gb" is not a known MIG profile'),
        ({"nvidia.com/mig-1g.5gb": 1, "nvidia.com/gpu": 1}, "one MIG profile and nothing else"),
        ({"nvidia.com/mig-1g.5gb": 1, "walras.dev/gpu-memory-mib": 9}, "one MIG profile and nothing else"),
        (
            {"nvidia.com/mig-1g.5gb": 1, "nvidia.com/mig-2g.10gb": 1},
            r"not nvidia.com/mig-1g.5gb, nvidia.com/m",
        ),
    ],
)
def test_a_request_that_no_lease_can_have_is_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        gpu_request(pod(limits))


def test_a_request_knows_its_total() -> None:
    assert GpuRequest(3, 143, mig_profile="1g.10gb").total_milli == 429


def test_resources_of_a_gpu_request_are_known_by_name() -> None:
    assert mig_resource("1g.10gb+me") == "nvidia.com/mig-1g.10gb.me"
    assert is_gpu_resource(mig_resource("3g.40gb"))
    assert is_gpu_resource("nvidia.com/gpu")
    assert not is_gpu_resource("nvidia.com/hostdev")


def test_a_node_may_tell_its_capacity_in_both_units() -> None:
    assert capacity({"nvidia.com/gpu": "2", "walras.dev/milligpu": 2000, "walras.dev/gpu-memory-mib": 9}) == (
        2000,
        9,
    )
    assert capacity({"walras.dev/milligpu": "250"}) == (250, 0)

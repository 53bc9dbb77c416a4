"""Whether a node takes a pod, as its kubelet sees it: the last word on who has which part of a lease."""

from __future__ import annotations

from typing import Any

import pytest
from support.world import lease_node

from walras.runtimes.admission import refusal

Object = dict[str, Any]
DRIVER = "gpu.nvidia.com"


def node(milli: int = 1000) -> Object:
    return lease_node("lease-1", milli=milli)


def by_limits(name: str, milli: int) -> Object:
    limits = {"walras.dev/milligpu": str(milli)}
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"containers": [{"name": "c", "resources": {"limits": limits, "requests": limits}}]},
    }


def by_claim(name: str, claim: str = "mine") -> Object:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {
            "containers": [{"name": "c"}],
            "resourceClaims": [{"name": "gpu", "resourceClaimName": claim}],
        },
    }


def held(milli: int, pool: str = "lease-1", driver: str = DRIVER, **said: Any) -> Object:
    """A claim that holds so much of a lease's device, with a tenth of its memory."""
    capacity = {"milliGPU": str(milli), "memory": "1638Mi"}
    result = {
        "request": "gpu", "driver": driver, "pool": pool, "device": "gpu-0", "shareID": "s",
        "consumedCapacity": capacity, **said,
    }  # fmt: skip
    return {"status": {"allocation": {"devices": {"results": [result]}}}}


def test_limits_and_claims_that_fit_a_device_together_are_taken() -> None:
    claims = [held(600)]
    assert refusal(by_limits("b", 400), node(), [by_claim("a")], lambda: claims) is None
    assert refusal(by_claim("a"), node(), [by_limits("b", 400)], lambda: claims) is None


def test_limits_for_what_a_claim_holds_are_rejected_though_no_pod_of_it_runs_yet() -> None:
    found = refusal(by_limits("b", 500), node(), [], lambda: [held(600)])
    assert found is not None and found.reason == "OutOfwalras.dev/milligpu"


def test_a_claim_of_what_pods_have_by_their_limits_is_rejected() -> None:
    found = refusal(by_claim("a"), node(), [by_limits("b", 500)], lambda: [held(600)])
    assert found is not None and found.reason == "UnexpectedAdmissionError"
    assert "whose devices pods have by their limits" in found.message


@pytest.mark.parametrize(
    "claim",
    [held(900, pool="lease-2"), held(900, driver="other.example.com"), held(900, adminAccess=True), {}],
    ids=["of another node", "of another driver", "of an administrator", "that holds nothing"],
)
def test_claims_of_other_things_leave_a_lease_to_limits(claim: Object) -> None:
    assert refusal(by_limits("b", 1000), node(), [], lambda: [claim]) is None


def test_a_claim_that_holds_a_device_whole_leaves_nothing_to_limits() -> None:
    whole = held(1)
    del whole["status"]["allocation"]["devices"]["results"][0]["shareID"]
    found = refusal(by_limits("b", 1), node(), [], lambda: [whole])
    assert found is not None and found.reason == "OutOfwalras.dev/milligpu"

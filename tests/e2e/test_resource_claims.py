"""Resource claims, end to end: manifests of the ecosystem, kubectl, the market, devices in containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.live import Live, eventually, phase, serving

pytestmark = pytest.mark.e2e

MARKET = {"walras.dev/max-price": "1.00", "walras.dev/class": "latency"}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Live]:
    """A server with two emulated devices that have MIG."""
    with serving(tmp_path, "emulated:2:H100") as server:
        yield server


def template(name: str, *, device_class: str = "gpu.nvidia.com", **exactly: Any) -> dict[str, Any]:
    request = {"name": "gpu", "exactly": {"deviceClassName": device_class, **exactly}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }


def pod_spec(script: str, claim_template: str) -> dict[str, Any]:
    return {
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "main",
                "image": "host",
                "command": ["/bin/sh", "-c", script],
                "resources": {"claims": [{"name": "gpu"}]},
            }
        ],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": claim_template}],
    }


def claiming_pod(name: str, script: str, claim_template: str) -> dict[str, Any]:
    metadata = {"name": name, "annotations": MARKET}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(script, claim_template)}


def slices(live: Live, agent: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = live.get(agent, "resourceslices")["items"]
    return found


def test_a_deployment_that_claims_gpus_wins_them_on_the_market_and_gives_them_back(pair: Live) -> None:
    acme = pair.agent("acme")
    spec = pod_spec("echo $WALRAS_DEVICES; exec sleep 1000", "single-gpu")
    spec["restartPolicy"] = "Always"
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "search"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "search"}},
            "template": {"metadata": {"labels": {"app": "search"}, "annotations": MARKET}, "spec": spec},
        },
    }
    pair.apply(acme, template("single-gpu"), deployment)
    eventually(
        lambda: pair.get(acme, "deployment", "search")["status"].get("availableReplicas") == 2,
        "both replicas to be available",
    )
    claims = pair.get(acme, "resourceclaims")["items"]
    assert len(claims) == 2
    given = set()
    for claim in claims:
        (result,) = claim["status"]["allocation"]["devices"]["results"]
        assert result["driver"] == "gpu.nvidia.com"
        (user,) = claim["status"]["reservedFor"]
        said = pair.kubectl(acme, "logs", user["name"]).strip()
        assert said == f"local/{result['device']}"
        node = pair.get(acme, "pod", user["name"])["spec"]["nodeName"]
        assert result["pool"] == node
        given.add(said)
    assert given == {"local/gpu-0", "local/gpu-1"}
    listed = pair.kubectl(acme, "get", "resourceclaims")
    assert listed.count("allocated,reserved") == 2
    assert {each["spec"]["nodeName"] for each in slices(pair, acme)} == {
        result["pool"] for claim in claims for result in claim["status"]["allocation"]["devices"]["results"]
    }
    pair.kubectl(acme, "delete", "deployment", "search")
    eventually(lambda: not pair.get(acme, "resourceclaims")["items"], "the claims to go with their pods")
    eventually(lambda: not slices(pair, acme), "the slices to go with the leases")
    assert pair.get(acme, "gpuleases")["items"] == [] or all(
        lease["status"]["phase"] == "Ended" for lease in pair.get(acme, "gpuleases")["items"]
    )


def test_parts_and_instances_are_claimed_side_by_side(pair: Live) -> None:
    acme = pair.agent("acme")
    profile = "device.attributes['gpu.nvidia.com'].profile == '1g.10gb'"
    pair.apply(
        acme,
        template("quarter", capacity={"requests": {"milliGPU": "250", "memory": "8Gi"}}),
        template("mig", device_class="mig.nvidia.com", selectors=[{"cel": {"expression": profile}}]),
        claiming_pod("part", "echo $WALRAS_MILLIGPU $WALRAS_GPU_MEMORY_MIB; sleep 1", "quarter"),
        claiming_pod("instance", "echo $WALRAS_MILLIGPU; sleep 1", "mig"),
    )
    for name in ("part", "instance"):
        eventually(lambda name=name: phase(pair, acme, name) == "Succeeded", f"{name} to end")  # type: ignore[misc]
    assert pair.kubectl(acme, "logs", "part").strip() == "250 8192"
    sold = [
        device["milliGPU"]
        for lease in pair.get(acme, "gpuleases")["items"]
        for device in lease["spec"]["devices"]
        if device.get("mig", "").startswith("1g.10gb")
    ]
    assert [pair.kubectl(acme, "logs", "instance").strip()] == [str(milli) for milli in sold]
    assert pair.get(acme, "resourceclaims")["items"] == []


def test_pods_share_a_lease_that_the_agent_has_instead_of_bidding(pair: Live) -> None:
    acme = pair.agent("acme")
    bid = {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Bid",
        "metadata": {"name": "reserve"},
        "spec": {"class": "latency", "packages": [{"devices": 1, "term": "5m", "maxPrice": "1.00"}]},
    }
    pair.apply(acme, bid, template("half", capacity={"requests": {"milliGPU": "500", "memory": "8Gi"}}))
    eventually(lambda: slices(pair, acme), "the lease")
    pair.apply(acme, *(claiming_pod(f"half-{at}", "exec sleep 1000", "half") for at in range(2)))
    for at in range(2):
        eventually(lambda at=at: phase(pair, acme, f"half-{at}") == "Running", "both to run")  # type: ignore[misc]
    assert [each["metadata"]["name"] for each in pair.get(acme, "bids")["items"]] == ["reserve"]
    results = [
        claim["status"]["allocation"]["devices"]["results"][0]
        for claim in pair.get(acme, "resourceclaims")["items"]
    ]
    assert len({each["device"] for each in results}) == 1
    assert len({each["shareID"] for each in results}) == 2
    limits = claiming_pod("limits", "true", "half")
    limits["spec"].pop("resourceClaims")
    limits["spec"]["containers"][0]["resources"] = {"limits": {"walras.dev/milligpu": 100}}
    pair.apply(acme, limits)
    eventually(
        lambda: phase(pair, acme, "limits") == "Succeeded", "the pod with limits, on a lease of its own"
    )
    held = {pair.get(acme, "pod", f"half-{at}")["spec"]["nodeName"] for at in range(2)}
    assert pair.get(acme, "pod", "limits")["spec"]["nodeName"] not in held


def test_a_claim_that_cannot_be_had_is_explained_and_costs_nothing(pair: Live) -> None:
    acme = pair.agent("acme")
    wanted = "device.attributes['gpu.nvidia.com'].productName.contains('B200')"
    pair.apply(
        acme,
        template("b200", selectors=[{"cel": {"expression": wanted}}]),
        claiming_pod("dreamer", "true", "b200"),
    )

    def events() -> str:
        return pair.kubectl(acme, "get", "events", "--field-selector", "involvedObject.name=dreamer")

    eventually(lambda: "InvalidRequest" in events(), "the pod to be told")
    said = events()
    assert "no device of this pool satisfies it; there are H100" in said
    assert "cannot allocate all claims" in said
    assert pair.get(acme, "bids")["items"] == []


def test_what_agents_may_not_do_to_slices_and_what_they_may_to_classes(pair: Live) -> None:
    acme = pair.agent("acme")
    made = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": "mine"},
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": "base",
            "pool": {"name": "base", "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0"}],
        },
    }
    said = pair.kubectl(acme, "create", "-f", "-", stdin=yaml.safe_dump(made), check=False)
    assert "come and go with what the agent has leased" in said
    classes = [each["metadata"]["name"] for each in pair.get(acme, "deviceclasses")["items"]]
    assert classes == ["gpu.nvidia.com", "mig.nvidia.com"]

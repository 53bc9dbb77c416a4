"""The devices that containers get for the claims of their pod."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.kubelet import ACME, World, in_world

from walras.runtimes.claimed import devices_of
from walras.runtimes.environment import ConfigError, EnvSource

Object = dict[str, Any]

CLAIMS = "resourceclaims.resource.k8s.io"
LEASE = [
    {"device": "local/gpu-0", "index": 0, "milliGPU": 1000, "memoryMiB": 16384, "enforcement": "emulated"},
    {"device": "local/gpu-3", "index": 3, "milliGPU": 1000, "memoryMiB": 16384, "enforcement": "emulated"},
]


def node(shares: list[Object] | None = None) -> Object:
    listed = msgspec.json.encode(LEASE if shares is None else shares).decode()
    return {"metadata": {"name": "lease-1", "annotations": {"walras.dev/devices": listed}}, "status": {}}


def pod(*claims: str, **container: Any) -> Object:
    named = [{"name": each, "resourceClaimName": each} for each in claims]
    main = {"name": "main", "resources": {"claims": [{"name": each} for each in claims]}, **container}
    return {
        "metadata": {"name": "p", "namespace": "default", "uid": "u1"},
        "spec": {"resourceClaims": named, "containers": [main]},
    }


def held(*devices: str, request: str = "gpu", uid: str = "u1", **result: Any) -> Object:
    results = [
        {"request": request, "driver": "gpu.nvidia.com", "pool": "lease-1", "device": each, **result}
        for each in devices
    ]
    reserved = [{"resource": "pods", "name": "p", "uid": uid}]
    return {"status": {"allocation": {"devices": {"results": results}}, "reservedFor": reserved}}


def env(found: Object, claims: Mapping[str, Object], on: Object | None = None) -> Mapping[str, str] | None:
    source = EnvSource(found, on or node(), lambda resource, name: claims.get(name))
    given = devices_of(source, found["spec"]["containers"][0])
    return None if given is None else given.env


def test_a_container_gets_what_its_claim_holds_and_no_more() -> None:
    given = env(pod("mine"), {"mine": held("gpu-3")})
    assert given is not None
    assert (given["WALRAS_DEVICES"], given["WALRAS_MILLIGPU"]) == ("local/gpu-3", "1000")


def test_a_container_that_names_no_claim_gets_no_device() -> None:
    assert env(pod("mine", resources={}), {"mine": held("gpu-0")}) is None


def test_a_container_may_name_one_request_of_a_claim() -> None:
    claims = {"both": held("gpu-0")}
    claims["both"]["status"]["allocation"]["devices"]["results"] += held("gpu-3", request="b/fast")["status"][
        "allocation"
    ]["devices"]["results"]
    named = {"claims": [{"name": "both", "request": "b"}]}
    given = env(pod("both", resources=named), claims)
    assert given is not None and given["WALRAS_DEVICES"] == "local/gpu-3"


def test_a_part_of_a_device_is_as_large_as_the_claim_consumes() -> None:
    given = env(pod("part"), {"part": held("gpu-0", consumedCapacity={"milliGPU": "250", "memory": "4Gi"})})
    assert given is not None
    assert (given["WALRAS_MILLIGPU"], given["WALRAS_GPU_MEMORY_MIB"]) == ("250", "4096")
    odd = env(pod("part"), {"part": held("gpu-0", consumedCapacity={"milliGPU": "x"})})
    assert odd is not None and odd["WALRAS_MILLIGPU"] == "1000"


def test_a_card_of_a_claim_is_the_only_one_inside() -> None:
    shares = [
        {**each, "enforcement": "exclusive", "uuid": f"GPU-{each['index']}",
         "files": [f"/dev/nvidia{each['index']}"]}
        for each in LEASE
    ]  # fmt: skip
    source = EnvSource(pod("mine"), node(shares), lambda resource, name: held("gpu-3"))
    given = devices_of(source, source.pod["spec"]["containers"][0])
    assert given is not None
    assert "/dev/nvidia3" in given.devices and "/dev/nvidia0" not in given.devices
    assert given.env["CUDA_VISIBLE_DEVICES"] == "GPU-3"


def test_two_claims_for_parts_of_one_card_are_one_larger_part_of_it() -> None:
    share = {**LEASE[0], "enforcement": "mps", "uuid": "GPU-0", "files": ["/dev/nvidia0"]}
    parts = {
        name: held("gpu-0", consumedCapacity={"milliGPU": "250", "memory": "4Gi"}) for name in ("one", "two")
    }
    given = env(pod("one", "two"), parts, node([share]))
    assert given is not None
    assert given["CUDA_VISIBLE_DEVICES"] == "GPU-0"
    assert given["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "50"
    assert given["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=8192M"


def test_instances_are_found_by_the_names_that_slices_give_them() -> None:
    shares = [{**LEASE[0], "mig": "1g.10gb@4", "milliGPU": 143}]
    given = env(pod("mig"), {"mig": held("gpu-0-mig-1g10gb-4")}, node(shares))
    assert given is not None and given["WALRAS_MILLIGPU"] == "143"


def test_devices_of_other_nodes_and_drivers_are_not_given() -> None:
    assert env(pod("mine"), {"mine": held("gpu-0", pool="lease-2")}) is None
    assert env(pod("mine"), {"mine": held("gpu-0", driver="other.com")}) is None
    assert env(pod("mine"), {"mine": held("gpu-9")}) is None


@pytest.mark.parametrize(
    ("claims", "said"),
    [({}, 'resourceclaim "mine" not found'), ({"mine": held("gpu-0", uid="u2")}, "is not reserved")],
)
def test_a_container_waits_until_its_claim_is_there_for_its_pod(claims: dict[str, Object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        env(pod("mine"), claims)


def test_a_pod_starts_when_its_claim_is_reserved_for_it(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        claim: Object = {"metadata": {"name": "mine", "namespace": "default"}, "spec": {}}
        await world.api.create(ACME, CLAIMS, claim)
        await world.pod("p", resourceClaims=[{"name": "mine", "resourceClaimName": "mine"}])

        def waits() -> bool:
            waiting = world.container("p").get("state", {}).get("waiting", {})
            return "is not reserved for the pod" in waiting.get("message", "")

        await world.until(waits)
        uid = world.api.get(ACME, "pods", "default", "p")["metadata"]["uid"]

        def reserve(latest: Object) -> None:
            latest["status"] = held(uid=uid)["status"]

        await world.api.edit(ACME, CLAIMS, "default", "mine", reserve)
        await world.phase("p", "Running")

    in_world(tmp_path, story)


def test_a_container_gets_the_devices_of_its_extended_resources() -> None:
    found = pod(resources={"limits": {"example.com/fast": "1"}})
    mapping = {"containerName": "main", "resourceName": "example.com/fast", "requestName": "r"}
    found["status"] = {
        "extendedResourceClaimStatus": {"resourceClaimName": "made", "requestMappings": [mapping]}
    }
    claims = {"made": held("gpu-0", request="r")}
    given = env(found, claims)
    assert given is not None and given["WALRAS_DEVICES"] == "local/gpu-0"
    mapping["containerName"] = "other"
    assert env(found, claims) is None

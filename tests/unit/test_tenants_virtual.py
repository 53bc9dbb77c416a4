"""Virtual machines by KubeVirt's kinds: instances become pods, machines keep instances by their strategy."""

from __future__ import annotations

import base64
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support import world as worlds
from support.world import AGENT, World, condition, lease_node

from walras.core.errors import Invalid
from walras.tenants.quota import RETRY_MS
from walras.tenants.virtual.instances import checked
from walras.tenants.virtual.launcher import launcher, resources

MACHINES = "virtualmachines.kubevirt.io"
INSTANCES = "virtualmachineinstances.kubevirt.io"
Object = dict[str, Any]


def tell(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    worlds.tell(story, handlers={"vm": {}})


def instance(**spec: Any) -> Object:
    return {"metadata": {"name": "box"}, "spec": {"domain": {"devices": {}}, **spec}}


def machine(*, domain: Object | None = None, **spec: Any) -> Object:
    template = {"metadata": {"labels": {"app": "box"}}, "spec": {"domain": domain or {"devices": {}}}}
    return {"metadata": {"name": "box"}, "spec": {"template": template, **spec}}


def stored(**spec: Any) -> Object:
    made = instance(**spec)
    made["metadata"] |= {"namespace": "default", "uid": "u-1"}
    return {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", **made}


def the(world: World, resource: str) -> Object:
    return world.api.get(AGENT, resource, "default", "box")


def phase(world: World) -> str:
    return str(the(world, INSTANCES).get("status", {}).get("phase"))


def shown(world: World) -> str:
    return str(the(world, MACHINES)["status"]["printableStatus"])


async def running(world: World) -> Object:
    (pod,) = [
        each for each in world.pods() if "phase" not in each["status"] or each["status"]["phase"] == "Pending"
    ]
    await world.run_pod(pod)
    now = {"name": "compute", "state": {"running": {}}}
    await world.set_status(pod, containerStatuses=[now])
    await world.settle()
    return pod


# What an instance asks of a pod


def test_memory_and_processors_become_limits_that_the_guest_has_and_requests_that_a_node_gives() -> None:
    domain = {"memory": {"guest": "1Gi"}, "cpu": {"sockets": 2, "cores": 2}, "devices": {}}
    assert resources(domain) == {
        "requests": {"memory": "1Gi", "cpu": "400m"},
        "limits": {"memory": "1Gi", "cpu": "4"},
    }


def test_each_gpu_is_one_more_of_its_resource_beside_what_is_asked_for_in_so_many_words() -> None:
    gpus = [{"name": name, "deviceName": "nvidia.com/gpu"} for name in ("one", "two")]
    asked = resources({"devices": {"gpus": gpus}, "resources": {"limits": {"walras.dev/milligpu": "500"}}})
    assert asked["limits"] == {"nvidia.com/gpu": "2", "walras.dev/milligpu": "500"}
    assert asked["requests"] == {"nvidia.com/gpu": "2"}


POD = {"name": "net", "pod": {}}
DEVICE = {"name": "net", "masquerade": {}}


@pytest.mark.parametrize(
    ("networks", "devices", "why"),
    [
        ([{"name": "net", "multus": {"networkName": "x"}}], {"interfaces": [DEVICE]}, "net (multus)"),
        ([POD, {**POD, "name": "two"}], {"interfaces": [DEVICE]}, "one network"),
        ([POD], {}, "an interface of its name"),
        ([POD], {"interfaces": [{"name": "other", "bridge": {}}]}, "an interface of its name"),
        ([POD], {"interfaces": [{"name": "net", "sriov": {}}]}, "net (sriov): use masquerade or bridge"),
        ([POD], {"interfaces": [{"name": "net"}]}, "net (of no type)"),
        ([], {"autoattachPodInterface": False}, "always in its agent's network"),
    ],
)
def test_the_pods_network_is_the_one_that_a_guest_can_be_in(
    networks: list[Object], devices: Object, why: str
) -> None:
    with pytest.raises(Invalid) as caught:
        launcher(stored(domain={"devices": devices}, networks=networks), lambda _: None)
    assert why in caught.value.message
    launcher(stored(domain={"devices": {"interfaces": [DEVICE]}}, networks=[POD]), lambda _: None)


def test_the_launcher_is_placed_as_the_instance_is_and_keeps_what_it_is_bid_for_by() -> None:
    made = stored(
        nodeSelector={"walras.dev/pool": "a100"},
        priorityClassName="urgent",
        terminationGracePeriodSeconds=5,
    )
    made["metadata"]["annotations"] = {"walras.dev/max-price": "3"}
    pod = launcher(made, lambda _: None)
    assert pod["metadata"]["annotations"]["walras.dev/max-price"] == "3"
    assert pod["spec"]["runtimeClassName"] == "vm" and pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["nodeSelector"] == {"walras.dev/pool": "a100"}
    assert pod["spec"]["priorityClassName"] == "urgent"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 5


def test_the_words_of_cloud_init_reach_the_guest_as_files() -> None:
    text = "#cloud-config\nruncmd: [date]\n"
    source = {"userDataBase64": base64.b64encode(text.encode()).decode(), "secretRef": {"name": "more"}}
    pod = launcher(
        stored(
            domain={"devices": {"disks": [{"name": "seed"}]}},
            volumes=[{"name": "seed", "cloudInitNoCloud": source}],
        ),
        lambda _: None,
    )
    assert pod["metadata"]["annotations"]["seed.kubevirt.io/user-data"] == text
    kinds = [next(key for key in volume if key != "name") for volume in pod["spec"]["volumes"]]
    assert kinds == ["downwardAPI", "secret"]
    assert {item["path"] for item in pod["spec"]["volumes"][0]["downwardAPI"]["items"]} == {
        "user-data",
        "meta-data",
    }


def test_disks_are_volumes_with_a_size_and_shared_directories_are_mounted() -> None:
    devices = {
        "disks": [{"name": "scratch"}, {"name": "data"}],
        "filesystems": [{"name": "config", "virtiofs": {}}],
    }
    volumes = [
        {"name": "scratch", "emptyDisk": {"capacity": "1Gi"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}},
        {"name": "config", "configMap": {"name": "settings"}},
    ]
    pod = launcher(stored(domain={"devices": devices}, volumes=volumes), {"mine": 1 << 31}.get)
    container = pod["spec"]["containers"][0]
    assert {"name": "WALRAS_DISKS", "value": '{"scratch":1073741824,"data":2147483648}'} in container["env"]
    assert {each["name"]: each["mountPath"] for each in container["volumeMounts"]} == {
        "scratch": "/var/run/kubevirt-private/vmi-disks/scratch",
        "data": "/var/run/kubevirt-private/vmi-disks/data",
        "config": "/mnt/config",
    }


@pytest.mark.parametrize(
    ("volume", "why"),
    [
        ({"containerDisk": {"image": "quay.io/fedora", "path": "/disk/x"}}, "the one file"),
        ({"hostDisk": {"path": "/etc/shadow", "type": "Disk"}}, "nobody's to take"),
        ({"dataVolume": {"name": "x"}}, "no importer"),
        ({"emptyDisk": {"capacity": "-1"}}, "between 1 and 16Ti"),
        ({"emptyDisk": {"capacity": "much"}}, "not a quantity"),
        ({"persistentVolumeClaim": {"claimName": "none"}}, "not there, or not bound"),
        ({}, "of no type"),
        ({"cloudInitNoCloud": {"userDataBase64": "?"}}, "base64"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(volume: Object, why: str) -> None:
    made = stored(domain={"devices": {"disks": [{"name": "v"}]}}, volumes=[{"name": "v", **volume}])
    with pytest.raises(Invalid, match=why):
        launcher(made, lambda _: None)


def test_a_disk_of_an_image_is_an_image_of_the_pod_and_never_what_is_booted() -> None:
    disk = {"image": "quay.io/x/disk:1", "imagePullPolicy": "Always", "imagePullSecret": "key"}
    made = stored(
        domain={"devices": {"disks": [{"name": "v"}]}}, volumes=[{"name": "v", "containerDisk": disk}]
    )
    pod = launcher(made, lambda _: None)
    image = {"reference": "quay.io/x/disk:1", "pullPolicy": "Always"}
    assert pod["spec"]["volumes"] == [{"name": "v", "image": image}]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "key"}]
    assert checked(pod)["spec"]["volumes"][0]["image"] == image
    made["spec"]["domain"]["devices"]["disks"][0]["bootOrder"] = 1
    with pytest.raises(Invalid, match="bootOrder"):
        launcher(made, lambda _: None)


def test_a_disk_without_a_volume_and_a_volume_that_nothing_attaches_are_told() -> None:
    with pytest.raises(Invalid, match="no volume is named v"):
        launcher(stored(domain={"devices": {"disks": [{"name": "v"}]}}), lambda _: None)
    with pytest.raises(Invalid, match="nothing attaches w"):
        launcher(stored(volumes=[{"name": "w", "emptyDisk": {"capacity": "1Gi"}}]), lambda _: None)


# Instances


def test_a_container_that_cannot_be_made_is_told_on_the_instance_and_on_the_machine() -> None:
    async def story(world: World) -> None:
        await world.create(MACHINES, machine(running=True))
        await world.settle()
        (pod,) = world.pods()
        waiting = {"reason": "CreateContainerError", "message": "the vm runtime hands no devices to a guest"}
        await world.set_status(pod, containerStatuses=[{"name": "compute", "state": {"waiting": waiting}}])
        await world.settle()
        for resource, kind in ((INSTANCES, "Synchronized"), (MACHINES, "Failure")):
            (told,) = [each for each in the(world, resource)["status"]["conditions"] if each["type"] == kind]
            assert (told["reason"], told["message"]) == (waiting["reason"], waiting["message"])
        await running(world)
        assert condition(the(world, MACHINES), "Failure") == ""

    tell(story)


def test_an_instance_goes_through_its_phases_with_its_pod() -> None:
    async def story(world: World) -> None:
        await world.create(INSTANCES, instance())
        await world.settle()
        (pod,) = world.pods()
        assert pod["metadata"]["name"].startswith("virt-launcher-box-")
        assert phase(world) == "Scheduled" and pod["spec"]["nodeName"] == "base"
        await running(world)
        assert phase(world) == "Running" and condition(the(world, INSTANCES), "Ready") == "True"
        assert the(world, INSTANCES)["status"]["nodeName"] == "base"
        assert "interfaces" not in the(world, INSTANCES)["status"]
        await world.set_status(pod, podIP="10.244.0.7")
        await world.settle()
        (device,) = the(world, INSTANCES)["status"]["interfaces"]
        assert (device["name"], device["ipAddress"]) == ("default", "10.244.0.7")
        await world.end_pod(pod)
        assert phase(world) == "Succeeded" and condition(the(world, INSTANCES), "Ready") == "False"
        moves = [each["phase"] for each in the(world, INSTANCES)["status"]["phaseTransitionTimestamps"]]
        assert moves[-2:] == ["Running", "Succeeded"]

    tell(story)


def test_an_instance_that_asks_for_a_gpu_waits_for_a_lease_like_any_pod() -> None:
    async def story(world: World) -> None:
        gpus = [{"name": "gpu", "deviceName": "nvidia.com/gpu"}]
        await world.create(INSTANCES, instance(domain={"devices": {"gpus": gpus}}))
        await world.settle()
        assert phase(world) == "Scheduling"
        await world.api.create(AGENT, "nodes", lease_node("leased"))
        await world.settle()
        (pod,) = world.pods()
        assert pod["spec"]["nodeName"] == "leased" and phase(world) == "Scheduled"

    tell(story)


def test_a_deleted_instance_stays_until_its_guest_has_ended() -> None:
    async def story(world: World) -> None:
        await world.create(INSTANCES, instance())
        await world.settle()
        pod = await running(world)
        await world.api.delete(AGENT, INSTANCES, "default", "box")
        await world.settle()
        assert "deletionTimestamp" in world.pods()[0]["metadata"]
        assert "deletionTimestamp" in the(world, INSTANCES)["metadata"]
        await world.remove(pod)
        assert world.api.find(AGENT, INSTANCES, "default", "box") is None

    tell(story)


def test_a_guest_that_is_gone_without_a_word_has_failed() -> None:
    async def story(world: World) -> None:
        await world.create(INSTANCES, instance())
        await world.settle()
        pod = await running(world)
        await world.remove(pod)
        assert phase(world) == "Failed" and world.pods() == []

    tell(story)


def test_an_instance_says_why_it_cannot_run_and_runs_once_it_can() -> None:
    async def story(world: World) -> None:
        made = instance(
            domain={"devices": {"disks": [{"name": "data"}]}},
            volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "mine"}}],
        )
        await world.create(INSTANCES, made)
        await world.settle()
        assert phase(world) == "Pending" and world.pods() == []
        assert condition(the(world, INSTANCES), "Synchronized") == "False"
        assert 'persistentvolumeclaim "mine"' in world.events("FailedCreate")[0]["message"]
        claim = {
            "metadata": {"name": "mine"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
        await world.create("persistentvolumeclaims", claim)
        await world.settle()
        assert condition(the(world, INSTANCES), "Synchronized") == "" and len(world.pods()) == 1

    tell(story)


def test_no_pod_comes_of_an_instance_whose_placement_is_none() -> None:
    async def story(world: World) -> None:
        await world.create(INSTANCES, instance(affinity={"nodeAffinity": "everywhere"}))
        await world.settle()
        assert world.pods() == [] and phase(world) == "Pending"
        assert world.events("FailedCreate")

    tell(story)


def test_a_server_without_the_runtime_says_so() -> None:
    async def story(world: World) -> None:
        await world.create(INSTANCES, instance())
        await world.settle()
        told = world.events("FailedCreate")
        assert 'RuntimeClass "vm" not found' in told[0]["message"]
        # The next pod has another name, and what is said of the first stays: nothing calls for another try.
        said = the(world, INSTANCES)
        assert len(told) <= 2
        await world.later(RETRY_MS / 1000 + 1)
        assert the(world, INSTANCES) == said and len(world.events("FailedCreate")) == len(told) + 1

    worlds.tell(story)


# Machines


def test_a_machine_that_is_always_to_run_is_started_again_whenever_it_ends() -> None:
    async def story(world: World) -> None:
        await world.create(MACHINES, machine(runStrategy="Always"))
        await world.settle()
        first = the(world, INSTANCES)
        assert first["metadata"]["labels"]["app"] == "box"
        pod = await running(world)
        assert shown(world) == "Running" and condition(the(world, MACHINES), "Ready") == "True"
        await world.end_pod(pod)
        assert the(world, INSTANCES)["metadata"]["uid"] != first["metadata"]["uid"]
        assert len(world.pods()) == 1

    tell(story)


def test_a_machine_that_fails_again_and_again_is_started_later_each_time() -> None:
    async def story(world: World) -> None:
        await world.create(MACHINES, machine(running=True))
        await world.settle()
        for wait_s in (10, 20):
            (pod,) = world.pods()
            await world.end_pod(pod, 1)
            assert shown(world) == "CrashLoopBackOff" and world.pods() == []
            await world.later(wait_s - 1)
            assert world.pods() == []
            await world.later(2)
            assert len(world.pods()) == 1
        assert the(world, MACHINES)["status"]["startFailure"]["consecutiveFailCount"] == 2
        await running(world)
        assert "startFailure" not in the(world, MACHINES)["status"]

    tell(story)


def test_a_machine_that_is_displaced_runs_again_at_once() -> None:
    async def story(world: World) -> None:
        await world.create(MACHINES, machine(runStrategy="RerunOnFailure"))
        await world.settle()
        before = the(world, INSTANCES)["metadata"]["uid"]
        pod = await running(world)
        gone = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByWalras"}
        await world.set_status(pod, conditions=[gone])
        await world.settle()
        await world.api.delete(AGENT, "pods", "default", pod["metadata"]["name"])
        await world.remove(pod)
        assert the(world, INSTANCES)["metadata"]["uid"] != before and len(world.pods()) == 1
        assert "startFailure" not in the(world, MACHINES)["status"]

    tell(story)


@pytest.mark.parametrize(
    ("strategy", "code", "again"),
    [("RerunOnFailure", 1, True), ("RerunOnFailure", 0, False), ("Once", 1, False), ("Manual", 0, False)],
)
def test_what_has_ended_runs_again_as_the_strategy_says(strategy: str, code: int, again: bool) -> None:
    async def story(world: World) -> None:
        await world.create(MACHINES, machine(runStrategy=strategy))
        await world.settle()
        if strategy == "Manual":
            assert world.api.find(AGENT, INSTANCES, "default", "box") is None and shown(world) == "Stopped"
            await ask(world, "Start")
        before = the(world, INSTANCES)["metadata"]["uid"]
        pod = await running(world)
        await world.end_pod(pod, code)
        await world.later(11)
        assert (the(world, INSTANCES)["metadata"]["uid"] != before) is again
        assert shown(world) == ("Starting" if again else "Stopped")

    tell(story)


async def ask(world: World, action: str) -> None:
    def change(latest: Object) -> None:
        latest.setdefault("status", {})["stateChangeRequests"] = [{"action": action}]

    await world.api.edit(AGENT, MACHINES, "default", "box", change)
    await world.settle()


def test_a_machine_starts_and_stops_when_it_is_asked_to() -> None:
    async def story(world: World) -> None:
        await world.create(MACHINES, machine(runStrategy="Manual"))
        await ask(world, "Start")
        pod = await running(world)
        assert "stateChangeRequests" not in the(world, MACHINES)["status"]
        await ask(world, "Stop")
        assert shown(world) == "Stopping"
        await world.remove(pod)
        assert world.api.find(AGENT, INSTANCES, "default", "box") is None and shown(world) == "Stopped"
        assert "stateChangeRequests" not in the(world, MACHINES)["status"]

    tell(story)


def test_a_machine_that_is_halted_stops_and_one_that_is_deleted_takes_its_instance_along() -> None:
    async def story(world: World) -> None:
        await world.create(MACHINES, machine(running=True))
        await world.settle()
        pod = await running(world)
        await world.api.edit(
            AGENT, MACHINES, "default", "box", lambda latest: latest["spec"].update(running=False)
        )
        await world.settle()
        await world.remove(pod)
        assert shown(world) == "Stopped" and world.pods() == []
        await world.api.edit(
            AGENT, MACHINES, "default", "box", lambda latest: latest["spec"].update(running=True)
        )
        await world.settle()
        pod = await running(world)
        await world.api.delete(AGENT, MACHINES, "default", "box", propagation="Background")
        await world.settle()
        await world.remove(pod)
        assert world.api.list(AGENT, INSTANCES, "default") == []

    tell(story)


@pytest.mark.parametrize("requests", [[{"action": "Start"}], ["Start"], "Start", [{}]])
def test_a_halted_machine_is_not_started_by_a_request(requests: Any) -> None:
    async def story(world: World) -> None:
        await world.create(MACHINES, machine(runStrategy="Halted"))
        await world.api.edit(
            AGENT, MACHINES, "default", "box",
            lambda latest: latest.setdefault("status", {}).update(stateChangeRequests=requests),
        )  # fmt: skip
        await world.settle()
        assert world.pods() == [] and shown(world) == "Stopped"

    tell(story)


def test_an_instance_of_somebody_else_is_left_alone() -> None:
    async def story(world: World) -> None:
        await world.create(INSTANCES, instance())
        await world.settle()
        await world.create(MACHINES, machine(running=True))
        await world.settle()
        assert "ownerReferences" not in the(world, INSTANCES)["metadata"]
        assert the(world, MACHINES)["status"]["created"] is False

    tell(story)

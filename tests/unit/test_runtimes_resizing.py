"""Pods that get other CPU and memory while they run, with a runtime that runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.kubelet import ACME, Object, World, in_world

from walras.runtimes.base import Limits
from walras.runtimes.fake import FakeRuntime

MIB = 1 << 20


def sized(cpu: str, memory: str = "64Mi", **more: Any) -> Object:
    amounts = {"cpu": cpu, "memory": memory}
    return {"resources": {"limits": amounts, "requests": amounts}, **more}


async def resize(world: World, name: str, cpu: str, memory: str = "64Mi") -> int:
    """The generation of the pod that wants so much."""

    def change(pod: Object) -> None:
        pod["spec"]["containers"][0] |= sized(cpu, memory)

    made = await world.api.edit(ACME, "pods", "default", name, change)
    return int(made["metadata"]["generation"])


async def running(world: World, name: str, **spec: Any) -> None:
    await world.pod(name, **spec)
    await world.phase(name, "Running")


def pending(world: World, name: str) -> Object:
    conditions = world.status(name).get("conditions") or ()
    return next((each for each in conditions if each["type"].startswith("PodResize")), {})


async def observed(world: World, name: str, generation: int) -> None:
    await world.until(lambda: world.status(name).get("observedGeneration") == generation)


def test_what_a_running_container_has_is_told_and_changed_without_a_restart(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await running(world, "p", container=sized("500m"))
        assert world.container("p")["resources"] == sized("500m")["resources"]
        assert world.container("p")["allocatedResources"] == {"cpu": "500m", "memory": "64Mi"}
        await observed(world, "p", await resize(world, "p", "1", "128Mi"))
        was = Limits(500, 64 * MIB, weight_milli=500, period_us=100_000)
        to = Limits(1000, 128 * MIB, weight_milli=1000, period_us=100_000)
        ((whole, parts),) = world.runtime.resized
        assert (whole.was, whole.to) == (parts["main"].was, parts["main"].to) == (was, to)
        assert world.container("p")["resources"] == sized("1", "128Mi")["resources"]
        assert world.container("p")["allocatedResources"] == {"cpu": "1", "memory": "128Mi"}
        assert world.container("p")["restartCount"] == 0 and not pending(world, "p")
        summary = '{"containers":[{"name":"main","resources":'
        for reason in ("ResizeStarted", "ResizeCompleted"):
            (said,) = world.events.of(reason)
            assert summary in said and said.endswith('"generation":2}')

    in_world(tmp_path, story)


def test_more_than_the_node_has_is_infeasible_and_the_container_keeps_what_it_has(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await running(world, "p", container=sized("500m"))
        generation = await resize(world, "p", "3")
        await observed(world, "p", generation)
        said = pending(world, "p")
        assert (said["type"], said["reason"], said["observedGeneration"]) == (
            "PodResizePending", "Infeasible", generation,
        )  # fmt: skip
        assert said["message"].endswith("cpu, requested: 3000, allocatable: 2000")
        assert world.container("p")["resources"] == sized("500m")["resources"]
        assert not world.runtime.resized and len(world.events.of("ResizeInfeasible")) == 1
        await observed(world, "p", await resize(world, "p", "500m"))
        assert not pending(world, "p")

    in_world(tmp_path, story)


def test_more_than_others_leave_is_deferred_until_they_give_it_back(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await running(world, "p", container=sized("500m"))
        await running(world, "big", container=sized("1500m"))
        await observed(world, "p", await resize(world, "p", "1"))
        assert pending(world, "p")["reason"] == "Deferred"
        used = "cpu, requested: 1000, used: 1500, capacity: 2000"
        assert pending(world, "p")["message"] == f"Node didn't have enough resource: {used}"
        # A new pod finds the room that is not given, and no more.
        await running(world, "small", container=sized("0"))
        await observed(world, "big", await resize(world, "big", "1200m"))
        assert pending(world, "p")["reason"] == "Deferred"
        await observed(world, "big", await resize(world, "big", "800m"))
        await world.until(lambda: not pending(world, "p"))
        assert world.container("p")["allocatedResources"]["cpu"] == "1"
        await observed(world, "p", await resize(world, "p", "1600m"))
        assert pending(world, "p")["reason"] == "Deferred"
        await world.api.delete(ACME, "pods", "default", "big", grace_seconds=0)
        await world.until(lambda: not pending(world, "p"))
        assert world.container("p")["resources"]["limits"]["cpu"] == "1600m"

    in_world(tmp_path, story)


def test_a_runtime_that_cannot_says_why(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await running(world, "p", container=sized("500m"))
        await observed(world, "p", await resize(world, "p", "600m"))
        assert pending(world, "p")["reason"] == "Infeasible"
        assert pending(world, "p")["message"] == "cast in iron"

    in_world(tmp_path, story, FakeRuntime(fixed="cast in iron"))


def test_what_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await running(world, "p", container=sized("500m"))
        world.runtime.unwilling = "below current usage"
        await observed(world, "p", await resize(world, "p", "500m", "32Mi"))
        said = pending(world, "p")
        assert (said["type"], said["reason"], said["message"]) == (
            "PodResizeInProgress", "Error", "below current usage",
        )  # fmt: skip
        assert world.container("p")["resources"]["limits"]["memory"] == "64Mi"
        assert world.container("p")["allocatedResources"]["memory"] == "32Mi"
        assert len(world.events.of("ResizeError")) == 1
        world.runtime.unwilling = ""
        await world.until(lambda: 10.0 in world.timers.pending())
        while pending(world, "p"):
            await world.passes(10.0)
            for _ in range(20):
                await world.until(lambda: True)
        assert world.container("p")["resources"]["limits"]["memory"] == "32Mi"

    in_world(tmp_path, story)


def test_a_container_whose_policy_says_so_begins_again_with_what_it_is_given(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
        await running(world, "p", restartPolicy="OnFailure", container=sized("500m", resizePolicy=policy))
        await observed(world, "p", await resize(world, "p", "600m"))
        assert len(world.runtime.processes) == 1
        await resize(world, "p", "600m", "128Mi")
        await world.started(2)
        await world.until(lambda: world.container("p")["restartCount"] == 1 and not pending(world, "p"))
        assert world.runtime.processes[1].spec.limits.memory_bytes == 128 * MIB
        assert world.container("p")["resources"] == sized("600m", "128Mi")["resources"]
        assert "Container main resize requires restart" in world.events.of("Killing")

    in_world(tmp_path, story)


def test_a_server_that_comes_back_gives_what_was_had_and_asks_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        container = {"name": "main", "image": "img", "command": ["run"], **sized("1900m")}
        had = {**sized("300m")["resources"], "limits": {"cpu": "300m"}}
        status = {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "main", "image": "img", "imageID": "", "ready": True, "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "resources": had,
                }
            ],
        }  # fmt: skip
        await running(world, "other", container=sized("1"))
        spec = {"nodeName": "base", "restartPolicy": "Always", "containers": [container]}
        metadata = {"name": "p", "namespace": "default"}
        await world.api.create(ACME, "pods", {"metadata": metadata, "spec": spec, "status": status})
        await world.started(2)
        assert world.runtime.processes[1].spec.limits.cpu_milli == 300
        await world.until(lambda: pending(world, "p").get("reason") == "Deferred")

    in_world(tmp_path, story)

"""Pods on nodes, with a runtime that runs nothing and an API that is real."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.kubelet import ACME, Object, World, in_world

from walras.core.errors import BadRequest
from walras.runtimes.fake import FakeRuntime
from walras.runtimes.kubelet import Kubelet


def test_a_bound_pod_runs_and_succeeds(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("job")
        await world.phase("job", "Running")
        assert world.container("job")["ready"] is True
        assert world.container("job")["containerID"].startswith("fake://")
        world.runtime.processes[0].exit(0)
        await world.phase("job", "Succeeded")
        assert world.container("job")["state"]["terminated"]["reason"] == "Completed"

    in_world(tmp_path, story)


def test_a_pod_without_a_node_is_left_alone(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("pending", nodeName="")
        await world.pod("elsewhere", nodeName="unknown")
        await world.pod("here")
        await world.phase("here", "Running")
        assert len(world.runtime.processes) == 1

    in_world(tmp_path, story)


def test_a_pod_bound_before_its_node_exists_starts_when_it_does(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("early", nodeName="lease-1")
        status = {"capacity": {"cpu": "500m", "pods": "10"}}
        await world.api.create(ACME, "nodes", {"metadata": {"name": "lease-1"}, "status": status})
        await world.phase("early", "Running")
        assert world.runtime.nodes[ACME, "lease-1"].cpu_milli == 500

    in_world(tmp_path, story)


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_the_restart_policy_decides(tmp_path: Path, policy: str, code: int, again: bool) -> None:
    async def story(world: World) -> None:
        await world.pod("p", restartPolicy=policy)
        await world.started(1)
        world.runtime.processes[0].exit(code)
        if again:
            await world.started(2)
            await world.until(lambda: world.container("p").get("restartCount") == 1)
            assert world.container("p")["lastState"]["terminated"]["exitCode"] == code
        else:
            await world.phase("p", "Failed" if code else "Succeeded")
            assert len(world.runtime.processes) == 1

    in_world(tmp_path, story)


def _waits(world: World, seconds: float) -> bool:
    return seconds in world.timers.pending()


def test_a_crashing_container_waits_longer_each_time(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", restartPolicy="Always")
        for attempt, delay_s in enumerate((0, 10, 20, 40, 80, 160, 300, 300), start=1):
            await world.started(attempt)
            world.runtime.processes[-1].exit(1)
            if delay_s:
                await world.until(partial(_waits, world, delay_s))
                await world.until(lambda: "waiting" in world.container("p").get("state", {}))
                assert world.container("p")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
                world.timers.fire()

    in_world(tmp_path, story)


def test_deletion_gives_the_grace_period_then_kills(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", terminationGracePeriodSeconds=7)
        await world.phase("p", "Running")
        await world.api.delete(ACME, "pods", "default", "p")
        process = world.runtime.processes[0]
        await world.until(lambda: process.signals == [15])
        await world.until(world.timers.pending)
        assert world.timers.pending()[0] == pytest.approx(7, abs=0.5)
        assert process.alive and not world.gone("p")
        world.timers.fire()
        await world.until(lambda: world.gone("p"))
        assert process.signals == [15, 9]

    in_world(tmp_path, story, FakeRuntime(stubborn=True))


def test_a_shorter_grace_period_takes_over(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p")
        await world.phase("p", "Running")
        await world.api.delete(ACME, "pods", "default", "p", grace_seconds=3600)
        await world.until(lambda: world.runtime.processes[0].signals == [15])
        await world.api.delete(ACME, "pods", "default", "p", grace_seconds=0)
        await world.until(lambda: world.gone("p") and not world.runtime.processes[0].alive)

    in_world(tmp_path, story, FakeRuntime(stubborn=True))


def test_a_node_that_is_stopped_takes_everything_with_it_and_nothing_starts_there_again(
    tmp_path: Path,
) -> None:
    async def story(world: World) -> None:
        await world.pod("kept", restartPolicy="Always")
        await world.pod("leaving", restartPolicy="Always")
        await world.phase("kept", "Running")
        await world.phase("leaving", "Running")
        await world.api.delete(ACME, "pods", "default", "leaving", grace_seconds=600)
        await world.kubelet.stop_node(ACME, "base")
        assert not any(process.alive for process in world.runtime.processes)
        assert world.gone("leaving")
        assert world.status("kept")["phase"] == "Failed"
        assert world.container("kept")["state"]["terminated"]["exitCode"] == 137
        await world.pod("late")
        await world.api.delete(ACME, "pods", "default", "late")
        await world.until(lambda: world.gone("late"))
        assert len(world.runtime.processes) == 2

    in_world(tmp_path, story, FakeRuntime(stubborn=True))


def test_a_node_that_is_deleted_is_stopped(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p")
        await world.phase("p", "Running")
        await world.api.delete(ACME, "nodes", "", "base")
        await world.phase("p", "Failed")
        assert not world.runtime.processes[0].alive

    in_world(tmp_path, story)


def test_an_interrupted_pod_that_exits_with_zero_has_not_succeeded(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        phases = []
        world.api.subscribe(
            "pods", lambda change: phases.append(change.object.get("status", {}).get("phase"))
        )
        await world.pod("trainer")
        await world.phase("trainer", "Running")

        def displace(pod: Object) -> None:
            pod["status"]["conditions"].append({"type": "DisruptionTarget", "status": "True"})

        await world.api.edit(ACME, "pods", "default", "trainer", displace)
        await world.api.delete(ACME, "pods", "default", "trainer")
        process = world.runtime.processes[0]
        await world.until(lambda: process.signals == [15])
        process.exit(0)
        await world.until(lambda: world.gone("trainer"))
        assert phases[-1] == "Failed"

    in_world(tmp_path, story, FakeRuntime(stubborn=True))


def test_a_container_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("nginx", container={"command": None, "image": "nginx"})
        await world.until(lambda: "waiting" in world.container("nginx").get("state", {}))
        waiting = world.container("nginx")["state"]["waiting"]
        assert waiting["reason"] == "CreateContainerError"
        assert waiting["message"] == 'container "main" has no command'
        assert ("Warning", "Failed") in {said[:2] for said in world.events.said}
        await world.api.delete(ACME, "pods", "default", "nginx")
        await world.until(lambda: world.gone("nginx"))

    in_world(tmp_path, story)


def test_what_a_pod_asks_of_the_machine_is_left_out_in_words(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        privileged = {"securityContext": {"privileged": True, "capabilities": {"add": ["SYS_ADMIN"]}}}
        await world.pod("p", container=privileged)
        await world.phase("p", "Running")
        (said,) = [said for said in world.events.said if said[1] == "Ignored"]
        assert said[2].startswith("runs without privileged, added capabilities: ")

    in_world(tmp_path, story)


@pytest.mark.parametrize("asked", ["hostNetwork", "hostPID", "hostIPC"])
def test_a_pod_that_asks_for_the_machines_namespaces_never_runs_and_says_why(
    tmp_path: Path, asked: str
) -> None:
    async def story(world: World) -> None:
        await world.pod("p", **{asked: True})
        await world.pod("other")
        await world.phase("other", "Running")
        await world.until(lambda: world.container("p"))
        said = f"Failed to create pod sandbox: {asked} not given: agents share the machine"
        assert world.events.of("FailedCreatePodSandBox") == [said]
        assert world.status("p")["phase"] == "Pending" and len(world.runtime.processes) == 1
        await world.api.delete(ACME, "pods", "default", "p")
        await world.until(lambda: world.gone("p"))

    in_world(tmp_path, story)


def test_a_pod_of_a_runtime_that_the_server_lacks_waits_and_says_so(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.api.create(
            ACME, "runtimeclasses.node.k8s.io", {"metadata": {"name": "gvisor"}, "handler": "runsc"}
        )
        await world.pod("p", runtimeClassName="gvisor")
        await world.until(lambda: world.container("p"))
        assert world.container("p")["state"] == {"waiting": {"reason": "ContainerCreating"}}
        said = "Failed to create pod sandbox: failed to get sandbox runtime: "
        said += 'no runtime for "runsc" is configured'
        assert ("Warning", "FailedCreatePodSandBox", said) in world.events.said
        await world.api.delete(ACME, "pods", "default", "p")
        await world.until(lambda: world.gone("p"))
        assert not world.runtime.processes

    in_world(tmp_path, story, FakeRuntime(handlers=("", "other")))


def test_a_pod_goes_to_the_runtime_of_its_class_once_there_is_one(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", runtimeClassName="sandboxed")
        await world.until(world.timers.pending)
        said = 'Failed to create pod sandbox: runtimeclasses.node.k8s.io "sandboxed" not found'
        assert ("Warning", "FailedCreatePodSandBox", said) in world.events.said
        await world.api.create(
            ACME, "runtimeclasses.node.k8s.io", {"metadata": {"name": "sandboxed"}, "handler": "other"}
        )
        world.timers.fire()
        await world.phase("p", "Running")
        assert world.runtime.processes[0].spec.pod.handler == "other"

    in_world(tmp_path, story, FakeRuntime(handlers=("", "other")))


def test_a_working_directory_stays_below_the_sandboxs_root(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", container={"workingDir": "/x/../../../oldroot/etc"})
        await world.phase("p", "Running")
        assert world.runtime.processes[0].spec.working_dir == "/oldroot/etc"

    in_world(tmp_path, story)


def test_a_volume_that_no_disk_has_room_for_is_tried_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        blocked = tmp_path / "agents" / ACME / "pods"
        blocked.parent.mkdir(parents=True, exist_ok=True)
        blocked.write_text("in the way, as a full disk would be")
        mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
        await world.pod("p", volumes=[{"name": "v", "emptyDir": {}}], container=mounts)
        await world.until(lambda: any(reason == "FailedMount" for _, reason, _ in world.events.said))
        await world.until(world.timers.pending)
        blocked.unlink()
        world.timers.fire()
        await world.phase("p", "Running")

    in_world(tmp_path, story)


def test_a_program_that_is_not_there_is_a_start_error(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p")
        await world.phase("p", "Failed")
        ended = world.container("p")["state"]["terminated"]
        assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
        assert ended["message"].endswith("no such program")

    in_world(tmp_path, story, FakeRuntime(lambda spec: "no such program"))


def test_what_a_lease_has_of_a_card_is_not_for_its_pods_to_say(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        share = {
            "device": "local/gpu-0", "index": 0, "milliGPU": 250, "memoryMiB": 4096, "enforcement": "mps",
            "uuid": "GPU-1", "files": ["/dev/nvidia0"],
        }  # fmt: skip
        annotations = {"walras.dev/devices": msgspec.json.encode([share]).decode()}
        status = {"capacity": {"cpu": "1", "pods": "10", "walras.dev/milligpu": "250"}}
        await world.api.create(
            ACME, "nodes", {"metadata": {"name": "lease-1", "annotations": annotations}, "status": status}
        )
        asked = {
            "env": [
                {"name": "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "value": "100"},
                {"name": "CUDA_VISIBLE_DEVICES", "value": "all"},
            ],
            "resources": {"limits": {"walras.dev/milligpu": "250"}},
        }
        await world.pod("p", nodeName="lease-1", container=asked)
        await world.started(1)
        spec = world.runtime.processes[0].spec
        assert spec.env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "25"
        assert spec.env["CUDA_VISIBLE_DEVICES"] == "GPU-1"
        assert spec.devices == ("/dev/nvidia0",)

    in_world(tmp_path, story)


def test_a_missing_config_map_is_waited_for(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", container={"envFrom": [{"configMapRef": {"name": "settings"}}]})
        await world.until(lambda: "waiting" in world.container("p").get("state", {}))
        assert world.container("p")["state"]["waiting"] == {
            "reason": "CreateContainerConfigError",
            "message": 'configmap "settings" not found',
        }
        metadata = {"name": "settings", "namespace": "default"}
        await world.api.create(ACME, "configmaps", {"metadata": metadata, "data": {"COLOUR": "red"}})
        await world.phase("p", "Running")
        assert world.runtime.processes[0].spec.env["COLOUR"] == "red"

    in_world(tmp_path, story)


def test_init_containers_run_one_by_one_before_the_others(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        inits = [{"name": name, "image": "i", "command": [name]} for name in ("first", "second")]
        await world.pod("p", initContainers=inits, restartPolicy="OnFailure")
        await world.started(1)
        assert world.status("p").get("phase", "Pending") == "Pending"
        world.runtime.processes[0].exit(0)
        await world.started(2)
        world.runtime.processes[1].exit(1)
        await world.started(3)
        world.runtime.processes[2].exit(0)
        await world.phase("p", "Running")
        assert [each.spec.name for each in world.runtime.processes] == ["first", "second", "second", "main"]

    in_world(tmp_path, story)


def test_a_failed_init_container_fails_a_pod_that_is_never_restarted(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", initContainers=[{"name": "i", "command": ["i"]}])
        await world.started(1)
        world.runtime.processes[0].exit(1)
        await world.phase("p", "Failed")
        assert len(world.runtime.processes) == 1

    in_world(tmp_path, story)


def test_a_pod_that_does_not_fit_its_node_is_rejected(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("fits", container={"resources": {"requests": {"cpu": "1500m"}}})
        await world.phase("fits", "Running")
        await world.pod("big", container={"resources": {"requests": {"cpu": "600m"}}})
        await world.phase("big", "Failed")
        assert world.status("big")["reason"] == "OutOfcpu"
        assert "containerStatuses" not in world.status("big")
        assert len(world.runtime.processes) == 1

    in_world(tmp_path, story)


def test_a_pod_that_lives_past_its_deadline_is_ended(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", activeDeadlineSeconds=60, restartPolicy="Always")
        await world.phase("p", "Running")
        await world.until(lambda: 60.0 in world.timers.pending())
        world.timers.fire()
        await world.phase("p", "Failed")
        assert world.status("p")["reason"] == "DeadlineExceeded"

    in_world(tmp_path, story)


def test_a_deadline_may_be_set_and_made_less_while_a_pod_runs(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", restartPolicy="Always")
        await world.phase("p", "Running")

        async def allow(seconds: int) -> None:
            def change(pod: Object) -> None:
                pod["spec"]["activeDeadlineSeconds"] = seconds

            await world.api.edit(ACME, "pods", "default", "p", change)
            generation = world.api.get(ACME, "pods", "default", "p")["metadata"]["generation"]
            await world.until(lambda: world.status("p").get("observedGeneration") == generation)
            await world.until(lambda: float(seconds) in world.timers.pending())

        await allow(600)
        await allow(60)
        assert 600.0 not in world.timers.pending()
        world.timers.fire()
        await world.phase("p", "Failed")
        assert world.status("p")["reason"] == "DeadlineExceeded"

    in_world(tmp_path, story)


def test_an_oom_kill_is_named(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p")
        await world.started(1)
        world.runtime.processes[0].exit(137, oom_killed=True)
        await world.phase("p", "Failed")
        assert world.container("p")["state"]["terminated"]["reason"] == "OOMKilled"

    in_world(tmp_path, story)


def test_what_ran_before_a_restart_of_the_server_is_run_again_or_counted_as_disrupted(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("service", restartPolicy="Always")
        await world.pod("batch", restartPolicy="Never")
        await world.phase("service", "Running")
        await world.phase("batch", "Running")
        await world.kubelet.stop(1)
        assert world.status("batch")["phase"] == "Running"
        again = FakeRuntime()
        kubelet = Kubelet(world.api, again, world.clock, world.events, tmp_path, sleep=world.timers.sleep)
        await kubelet.start()
        await world.until(lambda: world.container("service")["restartCount"] == 1)
        assert world.container("service")["lastState"]["terminated"]["exitCode"] == 137
        await world.phase("batch", "Failed")
        conditions = {each["type"]: each["status"] for each in world.status("batch")["conditions"]}
        assert conditions["DisruptionTarget"] == "True"
        await kubelet.stop(0)

    in_world(tmp_path, story)


def test_logs_are_of_the_attempt_that_is_asked_for(tmp_path: Path) -> None:
    async def read(world: World, **options: Any) -> bytes:
        pod = world.api.get(ACME, "pods", "default", "p")
        return b"".join([piece async for piece in world.kubelet.access.logs(ACME, pod, "main", **options)])

    async def story(world: World) -> None:
        await world.pod("p", restartPolicy="Always")
        await world.started(1)
        world.runtime.processes[0].output("stdout", b"first\n")
        world.runtime.processes[0].exit(1)
        await world.started(2)
        await world.until(lambda: world.container("p").get("restartCount") == 1)
        world.runtime.processes[1].output("stderr", b"second\n")
        assert await read(world) == b"second\n"
        assert await read(world, previous=True) == b"first\n"
        world.runtime.processes[1].exit(1)
        await world.until(lambda: "waiting" in world.container("p").get("state", {}))
        assert await read(world) == b"second\n"
        assert await read(world, previous=True) == b"second\n"

    in_world(tmp_path, story)


def test_logs_of_a_container_that_has_not_started_are_refused(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", container={"command": None})
        await world.until(lambda: world.container("p"))
        pod = world.api.get(ACME, "pods", "default", "p")
        with pytest.raises(BadRequest, match="is waiting to start: CreateContainerError"):
            world.kubelet.access.logs(ACME, pod, "main")
        with pytest.raises(BadRequest, match="previous terminated container"):
            world.kubelet.access.logs(ACME, pod, "main", previous=True)
        with pytest.raises(BadRequest, match="container other is not valid"):
            world.kubelet.access.logs(ACME, pod, "other")

    in_world(tmp_path, story)


def _files(data_dir: Path, uid: str) -> list[Path]:
    return list(data_dir.glob(f"agents/acme/*/{uid}"))


def test_a_deleted_pod_leaves_no_files(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        mount = {"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}
        await world.pod("p", container=mount, volumes=[{"name": "scratch", "emptyDir": {}}])
        await world.phase("p", "Running")
        uid = world.api.get(ACME, "pods", "default", "p")["metadata"]["uid"]
        assert _files(tmp_path, uid)
        await world.api.delete(ACME, "pods", "default", "p", grace_seconds=0)
        await world.until(lambda: not _files(tmp_path, uid))

    in_world(tmp_path, story)

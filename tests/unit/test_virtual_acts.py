"""KubeVirt's subresources: what each does to a machine by its run strategy, and what is refused and how."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from support import world as worlds
from support.world import AGENT, World, condition

from walras.core.errors import BadRequest, Conflict, Forbidden, NotFound, WalrasError
from walras.kube.machines import INSTANCES, MACHINES
from walras.tenants.virtual.acts import Acts

Object = dict[str, Any]
VM, VMI = "virtualmachines.kubevirt.io", "virtualmachineinstances.kubevirt.io"


@dataclass
class Held:
    """Notes which machines were held and let go on."""

    said: list[tuple[str, str, bool]] = field(default_factory=list)

    async def pause(self, cluster: str, pod: Object, container: str, paused: bool) -> None:
        self.said.append((pod["metadata"]["name"], container, paused))


@dataclass
class Stage:
    world: World
    acts: Acts
    held: Held

    async def machine(self, **spec: Any) -> None:
        template = {"spec": {"domain": {"devices": {}}, **spec.pop("template", {})}}
        await self.world.create(VM, {"metadata": {"name": "box"}, "spec": {"template": template, **spec}})
        await self.world.settle()

    async def runs(self) -> Object:
        """Its latest pod is started."""
        pod = next(each for each in self.world.pods() if not each["metadata"].get("deletionTimestamp"))
        await self.world.run_pod(pod)
        running = [{"name": "compute", "state": {"running": {}}}]
        await self.world.set_status(pod, containerStatuses=running)
        await self.world.settle()
        return pod

    async def act(self, act: str, resource: str = MACHINES, **options: Any) -> int:
        code = await self.acts.act(AGENT, resource, "default", "box", act, options)
        await self.world.settle()
        return code

    async def goes(self) -> None:
        """The kubelet is done with the pods that are to go."""
        for pod in self.world.pods():
            if pod["metadata"].get("deletionTimestamp"):
                await self.world.remove(pod)
        await self.world.settle()

    def the(self, resource: str) -> Object:
        return self.world.api.get(AGENT, resource, "default", "box")

    @property
    def shown(self) -> str:
        return str(self.the(VM)["status"]["printableStatus"])

    @property
    def instance(self) -> str:
        """The uid of its instance; "" without one."""
        found = self.world.api.find(AGENT, VMI, "default", "box")
        return str(found["metadata"]["uid"]) if found is not None else ""


def tell(story: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    async def told(world: World) -> None:
        held = Held()
        await story(Stage(world, Acts(world.api, world.clock, world.planes.dependents, held), held))

    worlds.tell(told, handlers={"vm": {}})


async def refusal(acting: Coroutine[Any, Any, Any], kind: type[WalrasError] = Conflict) -> str:
    with pytest.raises(kind) as caught:
        await acting
    return str(caught.value.message)


@pytest.mark.parametrize("said", [{"running": False}, {"runStrategy": "Halted"}])
def test_a_halted_machine_is_started_by_its_spec_and_stopped_by_it(said: Object) -> None:
    async def story(stage: Stage) -> None:
        await stage.machine(**said)
        assert await refusal(stage.act("stop")) == (
            'Operation cannot be fulfilled on virtualmachine.kubevirt.io "box": VM is not running'
        )
        assert await stage.act("start") == 202
        await stage.runs()
        assert stage.shown == "Running"
        assert "already running" in await refusal(stage.act("start"))
        assert await stage.act("stop") == 202
        await stage.goes()
        assert stage.shown == "Stopped" and not stage.instance
        spec = stage.the(VM)["spec"]
        assert ("running" in spec) == ("running" in said) and spec.get("runStrategy", "Halted") == "Halted"

    tell(story)


@pytest.mark.parametrize("how", ["Manual", "RerunOnFailure"])
def test_a_machine_that_keeps_its_strategy_stays_stopped_until_it_is_started(how: str) -> None:
    async def story(stage: Stage) -> None:
        await stage.machine(runStrategy=how)
        if how == "Manual":
            assert not stage.instance
            await stage.act("start")
        await stage.runs()
        first = stage.instance
        await stage.act("stop")
        await stage.goes()
        await stage.world.later(3600)
        assert not stage.instance and stage.shown == "Stopped"
        assert await stage.act("start") == 202
        await stage.runs()
        assert stage.instance not in ("", first) and stage.the(VM)["spec"]["runStrategy"] == how
        assert "stateChangeRequests" not in stage.the(VM)["status"]

    tell(story)


@pytest.mark.parametrize("how", ["Manual", "RerunOnFailure"])
def test_a_machine_that_ended_by_itself_is_started_anew(how: str) -> None:
    async def story(stage: Stage) -> None:
        await stage.machine(runStrategy=how)
        if how == "Manual":
            await stage.act("start")
        pod = await stage.runs()
        first = stage.instance
        await stage.world.end_pod(pod)
        await stage.world.later(3600)
        assert stage.instance == first and stage.shown == "Stopped"
        assert await stage.act("start") == 202
        await stage.goes()
        await stage.runs()
        assert stage.instance not in ("", first) and stage.shown == "Running"

    tell(story)


@pytest.mark.parametrize("how", ["Always", "Manual", "RerunOnFailure"])
def test_a_restart_makes_another_instance_once(how: str) -> None:
    async def story(stage: Stage) -> None:
        await stage.machine(runStrategy=how)
        if how == "Manual":
            await stage.act("start")
        await stage.runs()
        first = stage.instance
        assert await stage.act("restart") == 202
        assert "already underway" in await refusal(stage.act("restart"))
        await stage.goes()
        await stage.runs()
        second = stage.instance
        assert second not in ("", first) and stage.shown == "Running"
        await stage.world.later(3600)
        assert stage.instance == second

    tell(story)


def test_what_a_strategy_has_no_word_for_is_refused_in_kubevirts() -> None:
    async def story(stage: Stage) -> None:
        assert await refusal(stage.act("start"), NotFound) == 'virtualmachine.kubevirt.io "box" not found'
        await stage.machine(runStrategy="Once")
        pod = await stage.runs()
        assert "RunStategy Once does not support manual restart" in await refusal(stage.act("restart"))
        await stage.world.end_pod(pod)
        assert "Once does not support manual start requests" in await refusal(stage.act("start"))
        assert "gracePeriod=0" in await refusal(stage.act("restart", gracePeriodSeconds=5), BadRequest)
        assert "greater or equal" in await refusal(stage.act("stop", gracePeriod=-1), BadRequest)
        assert "started paused" in await refusal(
            stage.acts.act(AGENT, MACHINES, "default", "box", "start", {"paused": True}), BadRequest
        )

    tell(story)


def test_a_shorter_grace_period_holds_for_the_pod_and_a_dry_run_for_nothing() -> None:
    async def story(stage: Stage) -> None:
        await stage.machine(runStrategy="Always", template={"terminationGracePeriodSeconds": 300})
        await stage.runs()
        assert await stage.act("stop", gracePeriod=2, dryRun=["All"]) == 202
        assert stage.the(VM)["spec"]["runStrategy"] == "Always"
        assert await stage.act("stop", gracePeriod=2) == 202
        (pod,) = stage.world.pods()
        assert pod["metadata"]["deletionGracePeriodSeconds"] == 2

    tell(story)


def test_a_machine_that_is_being_stopped_is_given_less_time_and_never_more() -> None:
    async def story(stage: Stage) -> None:
        await stage.machine(runStrategy="Always", template={"terminationGracePeriodSeconds": 300})
        await stage.runs()
        assert await stage.act("stop") == 202
        assert "shorter graceperiod" in await refusal(stage.act("stop", gracePeriod=300))
        assert await stage.act("stop", gracePeriod=2) == 202
        (pod,) = stage.world.pods()
        assert pod["metadata"]["deletionGracePeriodSeconds"] == 2

    tell(story)


def test_a_paused_machine_is_held_shown_and_not_ready_until_it_goes_on() -> None:
    async def story(stage: Stage) -> None:
        await stage.machine(running=True)
        assert "not running" in await refusal(stage.act("pause", INSTANCES))
        pod = await stage.runs()
        gate = "kubevirt.io/virtual-machine-unpaused"
        assert condition(stage.world.pods()[0], gate) == "True"
        assert "VMI is not paused" in await refusal(stage.act("unpause", INSTANCES))
        assert await stage.act("pause", INSTANCES, dryRun=["All"]) == 200 and not stage.held.said
        assert await stage.act("pause", INSTANCES) == 200
        assert stage.shown == "Paused" and condition(stage.the(VMI), "Paused") == "True"
        assert condition(stage.world.pods()[0], gate) == "False"
        assert "already paused" in await refusal(stage.act("pause", INSTANCES))
        with pytest.raises(Conflict, match="VMI is paused"):
            stage.acts.entrance(AGENT, INSTANCES, "default", "box", "console")
        assert await stage.act("unpause", INSTANCES) == 200
        name = pod["metadata"]["name"]
        assert stage.held.said == [(name, "compute", True), (name, "compute", False)]
        assert stage.shown == "Running"
        assert not any(each["type"] == "Paused" for each in stage.the(VM)["status"]["conditions"])
        assert "ACPI" in await refusal(stage.act("softreboot", INSTANCES))

    tell(story)


def test_a_machine_with_a_liveness_probe_is_not_paused() -> None:
    async def story(stage: Stage) -> None:
        probe = {"tcpSocket": {"port": 22}}
        await stage.machine(running=True, template={"livenessProbe": probe})
        await stage.runs()
        assert "LivenessProbe is not supported" in await refusal(stage.act("pause", INSTANCES), Forbidden)

    tell(story)


def test_connections_lead_into_the_pod_of_a_machine_that_runs() -> None:
    async def story(stage: Stage) -> None:
        def enter(resource: str, act: str) -> Any:
            return stage.acts.entrance(AGENT, resource, "default", "box", act)

        with pytest.raises(NotFound, match="virtualmachineinstance"):
            enter(INSTANCES, "console")
        await stage.machine(runStrategy="RerunOnFailure")
        with pytest.raises(BadRequest, match="VMI is not running"):
            enter(INSTANCES, "console")
        pod = await stage.runs()
        for resource, act in ((INSTANCES, "console"), (INSTANCES, "portforward"), (MACHINES, "portforward")):
            found = enter(resource, act)
            assert found.pod["metadata"]["name"] == pod["metadata"]["name"] and found.container == "compute"
        await stage.act("stop")
        await stage.goes()
        with pytest.raises(Conflict, match="VMI is not started"):
            enter(MACHINES, "portforward")

    tell(story)

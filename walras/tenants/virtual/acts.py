"""What is done with machines by KubeVirt's subresources: start, stop, restart, pause, and ways into them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from walras.core.clock import Clock, rfc3339
from walras.core.errors import BadRequest, Conflict, Forbidden, NotFound
from walras.kube import machines
from walras.kube.api import API
from walras.kube.serve.ports import Entrance
from walras.tenants.dependents import Dependents
from walras.tenants.objects import PODS, Object, controlled_by, is_true, phase, set_condition
from walras.tenants.virtual.instance_status import FINAL, PAUSED
from walras.tenants.virtual.machine_plan import requests, strategy
from walras.tenants.virtual.words import COMPUTE, INSTANCES, MACHINES

# In place of the login of a serial console, whose output is the pod's log: a shell of the guest's root.
_CONSOLE: Final = ("sh", "-c", "if command -v bash >/dev/null; then exec bash -l; else exec sh -l; fi")
_KINDS: Final = {MACHINES: "virtualmachine", INSTANCES: "virtualmachineinstance"}
_ACCEPTED, _DONE = 202, 200
_GRACE_S_FORCED: Final = 1


class Pausing(Protocol):
    """Whoever runs the pods."""

    async def pause(self, cluster: str, pod: Object, container: str, paused: bool) -> None:
        """Holds the machine of a running container, or lets it go on. Raises NotFound, BadRequest."""


class Acts:
    """See ports.Machines. Refusals are in the words of virt-api."""

    def __init__(self, api: API, clock: Clock, dependents: Dependents, pods: Pausing) -> None:
        self._api, self._clock, self._dependents, self._pods = api, clock, dependents, pods

    async def act(
        self, cluster: str, resource: str, namespace: str, name: str, act: str, options: Object
    ) -> int:
        where, dry = (cluster, namespace, name), options.get("dryRun") == ["All"]
        if resource == machines.MACHINES:
            await {"start": self._start, "stop": self._stop, "restart": self._restart}[act](
                where, options, dry
            )
            return _ACCEPTED
        if act == "softreboot":
            self._running(where)
            raise _refused(
                INSTANCES, name, "VMI neither have the agent connected nor the ACPI feature enabled"
            )
        await self._pause(where, act == "pause", dry)
        return _DONE

    # What there is

    def _machine(self, where: _Where) -> Object:
        return self._found(MACHINES, where)

    def _found(self, resource: str, where: _Where) -> Object:
        cluster, namespace, name = where
        found = self._api.find(cluster, resource, namespace, name)
        if found is None:
            kind = _KINDS[resource]
            said = {"name": name, "group": "kubevirt.io", "kind": kind}
            raise NotFound(f'{kind}.kubevirt.io "{name}" not found', details=said)
        return found

    def _instance(self, where: _Where) -> Object | None:
        return self._api.find(where[0], INSTANCES, where[1], where[2])

    def _running(self, where: _Where) -> Object:
        found = self._found(INSTANCES, where)
        if phase(found) != "Running":
            raise _refused(INSTANCES, where[2], "VM is not running")
        return found

    async def _edit(self, resource: str, where: _Where, change: Callable[[Object], Any]) -> None:
        cluster, namespace, name = where
        await self._api.edit(cluster, resource, namespace, name, change)

    # Machines

    async def _start(self, where: _Where, options: Object, dry: bool) -> None:
        machine, instance = self._machine(where), self._instance(where)
        name, how = where[2], strategy(machine)
        told = phase(instance) if instance is not None else ""
        if told and told not in FINAL:
            raise _refused(MACHINES, name, "VM is already running")
        if options.get("paused"):
            raise BadRequest("a machine cannot be started paused: start it, then pause it")
        if how in {"Always", "Once"}:
            raise _refused(MACHINES, name, f"{how} does not support manual start requests")
        if how == "RerunOnFailure" and told == "Failed":
            raise _refused(MACHINES, name, f"{how} does not support starting VM from failed state")
        again = ("Stop", "Start") if told else ("Start",)
        if not dry:
            await self._edit(MACHINES, where, _running(True) if how == "Halted" else _asking(name, *again))

    async def _stop(self, where: _Where, options: Object, dry: bool) -> None:
        machine, instance = self._machine(where), self._instance(where)
        name, how = where[2], strategy(machine)
        runs = instance is not None and phase(instance) not in FINAL
        grace_s = _seconds(options, "gracePeriod")
        if how not in {"Always", "Once"} and not runs:
            raise _refused(MACHINES, name, "VM is not running")
        if how == "Halted" and (instance is None or grace_s is None or grace_s >= _grace_s(instance)):
            said = f"{how} only supports manual stop requests with a shorter graceperiod"
            raise _refused(MACHINES, name, said)
        if dry:
            return
        if runs and grace_s is not None:
            await self._edit(INSTANCES, where, _graceful(grace_s))
        await self._edit(
            MACHINES, where, _running(False) if how in {"Always", "Once"} else _asking(name, "Stop")
        )

    async def _restart(self, where: _Where, options: Object, dry: bool) -> None:
        grace_s = _seconds(options, "gracePeriodSeconds")
        if grace_s:
            raise BadRequest("For force restart, only gracePeriod=0 is supported for now")
        machine, name = self._machine(where), where[2]
        how = strategy(machine)
        if how in {"Halted", "Once"}:
            raise _refused(MACHINES, name, f"RunStategy {how} does not support manual restart requests")
        if self._instance(where) is None:
            raise _refused(MACHINES, name, "VM is not running: Halted")
        if dry:
            return
        if grace_s is not None:
            await self._edit(INSTANCES, where, _graceful(_GRACE_S_FORCED))
        await self._edit(MACHINES, where, _asking(name, "Stop", "Start"))

    # Instances

    async def _pause(self, where: _Where, paused: bool, dry: bool) -> None:
        instance, name = self._running(where), where[2]
        if is_true(instance, PAUSED) == paused:
            raise _refused(INSTANCES, name, "VMI is already paused" if paused else "VMI is not paused")
        if paused and instance["spec"].get("livenessProbe"):
            said = "Pausing VMIs with a non-GuestAgentPing LivenessProbe is not supported"
            raise Forbidden(f'virtualmachineinstance.kubevirt.io "{name}" is forbidden: {said}')
        if dry:
            return
        await self._pods.pause(where[0], self._pod(where, instance), COMPUTE, paused)
        now = rfc3339(self._clock.now_ms())

        def change(latest: Object) -> None:
            set_condition(
                latest, PAUSED, "True" if paused else "False", now,
                reason="PausedByUser" if paused else "", message="VMI was paused by user" if paused else "",
            )  # fmt: skip
            if not paused:
                kept = latest["status"]["conditions"]
                latest["status"]["conditions"] = [each for each in kept if each.get("type") != PAUSED]

        await self._edit(INSTANCES, where, change)

    def _pod(self, where: _Where, instance: Object) -> Object:
        found = self._dependents.controlled(where[0], instance, PODS)
        if not found:
            raise _refused(INSTANCES, where[2], "VM is not running")
        return found[0]

    def entrance(self, cluster: str, resource: str, namespace: str, name: str, act: str) -> Entrance:
        where = (cluster, namespace, name)
        if resource == machines.MACHINES and not self._machine(where).get("status", {}).get("created"):
            raise _refused(MACHINES, name, "VMI is not started")
        instance = self._found(INSTANCES, where)
        if resource == machines.MACHINES and not controlled_by(instance, self._machine(where)):
            raise _refused(MACHINES, name, "VMI is not started")
        if act == "console":
            if phase(instance) == "Failed":
                raise _refused(INSTANCES, name, "VMI is in failed status")
            if instance["spec"]["domain"]["devices"].get("autoattachSerialConsole") is False:
                raise BadRequest("No serial consoles are present.")
            if phase(instance) != "Running":
                raise BadRequest("VMI is not running")
        if is_true(instance, PAUSED):
            raise _refused(INSTANCES, name, "VMI is paused")
        return Entrance(self._pod(where, instance), COMPUTE, _CONSOLE)


# Cluster, namespace, name.
_Where = tuple[str, str, str]


def _refused(resource: str, name: str, why: str) -> Conflict:
    kind = _KINDS[resource]
    said = {"name": name, "group": "kubevirt.io", "kind": kind}
    return Conflict(f'Operation cannot be fulfilled on {kind}.kubevirt.io "{name}": {why}', details=said)


def _running(wanted: bool) -> Callable[[Object], None]:
    """By whichever of the two fields the machine says when it runs."""

    def change(machine: Object) -> None:
        if machine["spec"].get("running") is not None:
            machine["spec"]["running"] = wanted
        else:
            machine["spec"]["runStrategy"] = "Always" if wanted else "Halted"

    return change


def _asking(name: str, *actions: str) -> Callable[[Object], None]:
    """Puts requests before the controller. Raises Conflict while others are on their way."""

    def change(machine: Object) -> None:
        status = machine.setdefault("status", {})
        waiting = [each.get("action") for each in requests(machine) if isinstance(each, dict)]
        # A stop replaces all; one that has been served stands for as long as nothing else is asked.
        if waiting and actions != ("Stop",) and (waiting != ["Stop"] or status.get("created")):
            raise _refused(MACHINES, name, "unable to complete request: stop/start already underway")
        status["stateChangeRequests"] = [{"action": each} for each in actions]
        status.pop("startFailure", None)

    return change


def _graceful(grace_s: int) -> Callable[[Object], None]:
    def change(instance: Object) -> None:
        instance["spec"]["terminationGracePeriodSeconds"] = grace_s

    return change


def _grace_s(instance: Object) -> int:
    found = instance["spec"].get("terminationGracePeriodSeconds")
    return 30 if found is None else int(found)


def _seconds(options: Object, name: str) -> int | None:
    """Raises BadRequest for what is no number of seconds."""
    found = options.get(name)
    if found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 31:
        raise BadRequest(f"{name} has to be greater or equal to 0")
    return found

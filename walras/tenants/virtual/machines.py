"""Keeps VirtualMachines: an instance of each for as long as its run strategy wants one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from walras.core.clock import Clock
from walras.core.errors import Conflict, NotFound
from walras.kube import fields
from walras.kube.api import API, Change
from walras.kube.record import copy
from walras.kube.registry_builtin import for_agents
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager
from walras.tenants.events import Recorder
from walras.tenants.objects import Object, controlled_by, controller_of, deleting, owner_reference
from walras.tenants.quota import RETRY_MS, Room
from walras.tenants.virtual.machine_plan import Plan, new_instance, plan, report
from walras.tenants.virtual.words import API_VERSION, INSTANCES, MACHINES
from walras.tenants.workloads import REFUSALS, takes_pods

COMPONENT: Final = "virtualmachine-controller"
_KIND: Final = "VirtualMachine"


class MachineController:
    """Keys are virtual machines."""

    def __init__(self, api: API, clock: Clock, manager: Manager, recorder: Recorder) -> None:
        self._api, self._clock, self._manager, self._recorder = api, clock, manager, recorder
        self._room = Room(api)

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(MACHINES, self._changed),
            self._api.subscribe(INSTANCES, self._instance_changed),
        ]

    def _changed(self, change: Change) -> None:
        if change.type != "DELETED":
            self._manager.add(self, Key(change.cluster, change.namespace, change.name))

    def _instance_changed(self, change: Change) -> None:
        owner = controller_of(change.object)
        if change.type == "DELETED" or (owner is not None and owner.get("kind") == _KIND):
            # Instances have their machines' names; one that goes may have stood in a new machine's way.
            self._manager.add(self, Key(change.cluster, change.namespace, change.name))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        machine = self._api.find(cluster, MACHINES, namespace, name)
        if machine is None or deleting(machine):
            # Its instance goes by its owner reference.
            return None
        found = self._api.find(cluster, INSTANCES, namespace, name)
        instance = found if found is not None and controlled_by(found, machine) else None
        now_ms = self._clock.now_ms()
        planned = plan(machine, instance, now_ms)
        transaction, again_ms = self._api.transaction(), planned.again_ms
        try:
            if planned.act == "stop":
                transaction.delete(cluster, INSTANCES, namespace, name)
                self._recorder.about(transaction, cluster, machine, COMPONENT).normal(
                    "SuccessfulDelete",
                    f"Stopped the virtual machine by deleting the virtual machine instance {name}",
                )
            elif planned.act == "start" and found is None:
                instance, again_ms = self._start(transaction, cluster, machine)
            transaction.edit(
                cluster, MACHINES, namespace, name,
                lambda latest: report(latest, instance, self._after(planned, instance), now_ms),
            )  # fmt: skip
        except NotFound:
            return 1
        with suppress(Conflict):
            await transaction.commit()
        return again_ms

    @staticmethod
    def _after(planned: Plan, instance: Object | None) -> Plan:
        return planned if planned.act != "start" or instance is not None else Plan()

    def _start(
        self, transaction: Transaction, cluster: str, machine: Object
    ) -> tuple[Object | None, int | None]:
        """Stages the instance; milliseconds until another try where it cannot be."""
        namespace, name = machine["metadata"]["namespace"], machine["metadata"]["name"]
        if not takes_pods(self._api, cluster, namespace):
            return None, None
        notes = self._recorder.about(transaction, cluster, machine, COMPONENT)
        if not self._room.left(cluster):
            notes.warning("FailedCreate", self._room.refusal(cluster))
            return None, RETRY_MS
        kind = for_agents()[INSTANCES]
        wanted = {"apiVersion": API_VERSION, "kind": kind.kind, **copy(new_instance(machine))}
        wanted["metadata"]["ownerReferences"] = [owner_reference(machine)]
        try:
            shaped, _ = fields.decode(kind.schema, wanted)
            made = transaction.make(cluster, INSTANCES, shaped)
        except REFUSALS as refusal:
            notes.warning("FailedCreate", f"Error creating virtual machine instance: {refusal.message}")
            return None, RETRY_MS
        notes.normal(
            "SuccessfulCreate",
            f"Started the virtual machine by creating the new virtual machine instance {name}",
        )
        return made, None

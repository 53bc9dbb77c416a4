"""The exchange's side of the devices: which are on the market, made ready for leases, watched, and metered.

Devices without cards behind them are always ready and never fail by themselves; a taint takes any of them off
the market.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from walras.core.clock import Clock
from walras.cost.usage import Used
from walras.exchange.effects import Effects
from walras.exchange.emptying import NodeRuntime
from walras.exchange.fitting import Fitting, technique_of
from walras.exchange.gpumeter import Occupant
from walras.exchange.health import FAILED, NO_EXECUTE, NO_SCHEDULE, OCCUPIED, Health, Taint
from walras.exchange.holding import Holding
from walras.exchange.nodes import DEVICES_ANNOTATION, NODES, device_rows
from walras.exchange.supply import Supply
from walras.exchange.watching import Watch
from walras.kube.api import API
from walras.kube.record import Object
from walras.market.types import Device
from walras.runtimes.gpus.cards import Fault, Use
from walras.runtimes.gpus.machine import Access

Holdings = Mapping[str, Holding]


class Equipment:
    """`holdings` gives the leases that there are; `wake` is called when a step would do something."""

    def __init__(
        self,
        api: API,
        supply: Supply,
        clock: Clock,
        runtime: NodeRuntime,
        holdings: Callable[[], Holdings],
        wake: Callable[[], None],
    ) -> None:
        self._api, self._supply, self._runtime, self._holdings = api, supply, runtime, holdings
        self.health = Health(api, supply, wake)
        self.fitting: Fitting | None = None
        self.watch: Watch | None = None
        # Devices that were off the market when they were last looked at.
        self._off: set[str] = set()
        # Devices that leave the market with this step: their taints are not stored yet.
        self._leaving: set[str] = set()
        if supply.machine is not None:
            self.fitting = Fitting(supply.machine, supply, wake)
            self.watch = Watch(supply.machine, clock, self._occupants, wake)

    async def resume(self, holdings: Sequence[Holding]) -> None:
        """Makes cards ready for leases that go on, and has their nodes say what their programs get of them.

        To be called before anything runs on a node. Raises StorageError.
        """
        if self.fitting is None or self._supply.machine is None:
            return
        await asyncio.to_thread(self._supply.machine.clear)
        running = [each for each in holdings if each.phase != "Reserved" and is_as_sold(each, self._supply)]
        self.fitting.want(running)
        await self.fitting.settled()
        tx = self._api.transaction()
        for each in running:
            there = self._api.has_cluster(each.agent) and self._api.find(each.agent, NODES, "", each.node)
            if there and self.fitting.is_ready(each):
                rows = device_rows(each, self._supply, self.fitting.access(each))
                tx.edit(each.agent, NODES, "", each.node, partial(_say, rows))
        if not tx.is_empty:
            await tx.commit()

    def start(self) -> None:
        if self.watch is not None:
            self.watch.start()

    async def cancel(self) -> None:
        if self.watch is not None:
            await self.watch.cancel()
        if self.fitting is not None:
            await self.fitting.cancel()

    def offered(self) -> tuple[Device, ...]:
        """The devices on the market."""
        return self.health.offered()

    # Leases that begin

    def want(self, running: Iterable[Holding], coming: Iterable[Holding]) -> None:
        """These leases run, those could begin; for those that end as they cannot go on nothing is made."""
        if self.fitting is not None:
            self.fitting.want(
                [each for each in running if is_as_sold(each, self._supply)],
                [each for each in coming if is_as_sold(each, self._supply)],
            )

    def is_ready(self, holding: Holding) -> bool:
        """Whether it may begin: its cards are what it needs, and none leaves the market with this step."""
        if any(share.device in self._leaving for share in holding.shares):
            return False
        return self.fitting is None or self.fitting.is_ready(holding)

    def access(self, holding: Holding) -> tuple[Access, ...]:
        """What programs get of each share of a lease that is ready; nothing where there are no cards."""
        return self.fitting.access(holding) if self.fitting is not None else ()

    def began(self, holding: Holding, node: Object) -> None:
        if self.fitting is not None:
            self.fitting.describe(holding, node)

    def ended(self) -> None:
        """A lease is over."""
        if self.fitting is not None:
            self.fitting.keep_only(self._holdings().values())

    def used(self, holding: Holding, cpu_ms: int) -> Used:
        """What the lease used since this was last asked."""
        if self.watch is None:
            return Used(cpu_ms)
        taken = {share.device: self.watch.meter.take(holding.id, share.device) for share in holding.shares}
        return Used(cpu_ms, taken)

    # What goes wrong

    def take_in(self, fx: Effects, now_ms: int) -> list[tuple[Holding, str, str]]:
        """Stage what became of devices; returns the leases that end by it, with reasons and words.

        A step begins with it.
        """
        self._leaving.clear()
        if self.fitting is not None and self.watch is not None:
            self._take_in_returned(self.fitting)
            self._take_in_errors(fx, self.fitting, now_ms)
            self._take_in_readings(fx, self.fitting, self.watch, now_ms)
        return self._over()

    def _take_in_returned(self, fitting: Fitting) -> None:
        """A card that had a taint is looked at again when it has none any more."""
        off = {device for device in fitting.uuid_of if self.health.taints(device)}
        for device in self._off - off:
            fitting.again(device)
        self._off = off

    def _take_in_errors(self, fx: Effects, fitting: Fitting, now_ms: int) -> None:
        """A card that cannot be made ready is held out while it is in use, else until somebody mends it.

        Its leases end, but where it is one that was to begin that it cannot be made ready for: then only that
        one does, and the others have their terms.
        """
        lost = self.health.lost()
        for device, error, spares in fitting.errors():
            if device in lost:
                continue
            if error.busy:
                self._hold_out(fx, device, error.message, now_ms)
            elif spares and not error.lost:
                self._close(fx, device, error.message, now_ms)
            else:
                self._fail(fx, device, "NotReady", error.message, now_ms)

    def _take_in_readings(self, fx: Effects, fitting: Fitting, watch: Watch, now_ms: int) -> None:
        for fault in watch.faults():
            self._tell_or_fail(fx, fitting.device_of[fault.uuid], fault, now_ms)
        for who, uses in watch.greedy():
            self._end_greedy(fx, who, uses)
        for uuid in watch.occupied():
            device = fitting.device_of[uuid]
            if not self.health.taints(device):
                pids = ", ".join(str(use.pid) for use in watch.readings[uuid].uses[:8])
                self._hold_out(fx, device, f"processes {pids} run on it and are no lease's", now_ms)
        for uuid in watch.empty():
            device = fitting.device_of[uuid]
            if self.health.has(device, OCCUPIED):
                self.health.untaint(fx, device, OCCUPIED, "nothing runs on it any more; it is sold again")

    def _end_greedy(self, fx: Effects, who: Occupant, uses: Sequence[Use]) -> None:
        """End the programs that have more of a shared card's memory than their lease: others paid for it."""
        holding = self._holdings().get(who.lease)
        if holding is None or self._supply.machine is None:
            return
        there = frozenset(self._runtime.node_pids(holding.agent, holding.node))
        self._supply.machine.kill(use.pid for use in uses if use.pid in there)
        used_mib = sum(use.memory_mib for use in uses)
        message = f"its programs had {used_mib} MiB of {who.device}, where the lease has {who.memory_mib}"
        for about in (fx.lease(holding), *fx.pods_on(holding)):
            fx.tell(holding.agent, about, "GpuMemoryExceeded", f"{message}; they were ended", warn=True)

    def _tell_or_fail(self, fx: Effects, device: str, fault: Fault, now_ms: int) -> None:
        if not fault.fatal:
            self.health.tell(fx, device, fault.reason, fault.message)
        elif not self.health.has(device, FAILED, NO_EXECUTE):
            # Of one of which nothing more is sold, those that run there have their terms; that ends now.
            self._fail(fx, device, fault.reason, fault.message, now_ms)

    def _fail(self, fx: Effects, device: str, reason: str, message: str, now_ms: int) -> None:
        words = f"{message}; its leases end. `walras device return {device}` sells it again"
        self._leaving.add(device)
        self.health.taint(fx, device, Taint(FAILED, NO_EXECUTE, reason), words, now_ms)

    def _close(self, fx: Effects, device: str, why: str, now_ms: int) -> None:
        words = f"{why}; nothing more of it is sold. `walras device return {device}` sells it again"
        self._leaving.add(device)
        self.health.taint(fx, device, Taint(FAILED, NO_SCHEDULE, "NotReady"), words, now_ms)

    def _hold_out(self, fx: Effects, device: str, why: str, now_ms: int) -> None:
        words = f"{why}; it is not sold until it is empty"
        self._leaving.add(device)
        self.health.taint(fx, device, Taint(OCCUPIED, NO_SCHEDULE, "Occupied"), words, now_ms)

    def stuck(self, fx: Effects, holding: Holding, error: BaseException, now_ms: int) -> None:
        """Stage that the devices of a lease are held out: what ran there does not die."""
        for share in holding.shares:
            if not self.health.taints(share.device):
                self._hold_out(fx, share.device, f"what ran there does not end: {error}", now_ms)

    def _over(self) -> list[tuple[Holding, str, str]]:
        if self.health.all_sold:
            return []
        lost, found = self.health.lost(), []
        for holding in self._holdings().values():
            for share in holding.shares:
                taint = lost.get(share.device)
                if taint is not None:
                    what = taint.value or taint.key
                    found.append((holding, "DeviceFailed", f"the device {share.device} was lost: {what}"))
                    break
                if holding.phase == "Reserved" and self.health.taints(share.device):
                    message = f"the device {share.device} was taken off the market"
                    found.append((holding, "DeviceTainted", message))
                    break
        return found

    def _occupants(self, uuid: str) -> list[Occupant]:
        """Who is on a card, with the processes of their pods."""
        assert self.fitting is not None
        found = []
        for holding in self._holdings().values():
            if holding.phase == "Reserved" or (holding.uuids and uuid not in holding.uuids):
                continue
            for share in holding.shares:
                if self.fitting.uuid_of.get(share.device) == uuid:
                    instance = self.fitting.instance(uuid, share.mig)
                    pids = frozenset(self._runtime.node_pids(holding.agent, holding.node))
                    technique = technique_of(holding)
                    if technique is not None:
                        found.append(
                            Occupant(holding.id, share.device, technique, pids, instance, share.memory_mib)
                        )
        return found


def is_as_sold(holding: Holding, supply: Supply) -> bool:
    """Whether the lease's devices are there, and are divided and kept apart as when it was granted."""
    is_there = supply.has(holding.shares, holding.uuids)
    return is_there and supply.enforcement_of(holding.shares) == holding.enforcement


def _say(rows: str, node: Object) -> None:
    node["metadata"]["annotations"][DEVICES_ANNOTATION] = rows

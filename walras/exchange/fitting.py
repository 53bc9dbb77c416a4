"""Cards made ready for leases, in the background: what they need together is told, and done when it differs.

Level-triggered: leases say what each card has to be, a worker makes it so, one card after the other, as the
driver does one thing at a time. A lease starts when its cards are ready, and no card is touched for one that
runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import structlog

from walras.core.errors import Invalid
from walras.devices.arrangement import Technique, Wanted, wanted
from walras.devices.mig import MigInstance
from walras.exchange.holding import Holding
from walras.exchange.supply import Supply
from walras.kube.record import Object
from walras.market.types import Share
from walras.runtimes.environment import gpu
from walras.runtimes.gpus import cdi
from walras.runtimes.gpus.cards import CardError
from walras.runtimes.gpus.machine import Access, Machine, Needed

_log = structlog.get_logger("walras.exchange")
_WHOLE = 1000


class Fitting:
    """Cards by UUID. `wake` is called when a card is ready, or could not be made so."""

    def __init__(self, machine: Machine, supply: Supply, wake: Callable[[], None]) -> None:
        self._machine, self._wake = machine, wake
        self.uuid_of = {device.id: str(device.attributes["uuid"]) for device in supply.devices}
        self.device_of = {uuid: device for device, uuid in self.uuid_of.items()}
        self._needed: dict[str, Needed] = {}
        # What leases that run need, without those that could begin.
        self._running: dict[str, Needed] = {}
        self._ready: dict[str, Needed] = {}
        self._access: dict[str, Mapping[MigInstance | None, Access]] = {}
        self._refused: dict[str, Needed] = {}
        self._errors: dict[str, tuple[Needed, CardError]] = {}
        self._task: asyncio.Task[None] | None = None

    def want(self, running: Sequence[Holding], coming: Sequence[Holding] = ()) -> None:
        """These leases run, and those are to start: have every card be what its leases need."""
        self._running = needs(running, self.uuid_of)
        self._needed = needs([*running, *coming], self.uuid_of) if coming else self._running
        for uuid, needed in list(self._refused.items()):
            if self._needed.get(uuid) != needed:
                del self._refused[uuid]
        if self._todo() is not None and self._task is None:
            self._task = asyncio.create_task(self._work())

    def _todo(self) -> str | None:
        for uuid, needed in self._needed.items():
            if self._ready.get(uuid) != needed and self._refused.get(uuid) != needed:
                return uuid
        return None

    async def _work(self) -> None:
        try:
            while (uuid := self._todo()) is not None:
                needed = self._needed[uuid]
                self._ready.pop(uuid, None)
                try:
                    self._access[uuid] = await asyncio.to_thread(self._machine.arrange, uuid, needed)
                except CardError as error:
                    self._refused[uuid], self._errors[uuid] = needed, (needed, error)
                    _log.warning("a card could not be made ready", card=uuid, error=error.message)
                else:
                    self._ready[uuid] = needed
                self._wake()
        finally:
            self._task = None

    def is_ready(self, holding: Holding) -> bool:
        """Whether all cards of the lease are what it needs, beside all others that were told."""
        return all(self._is_ready(share, holding) for share in holding.shares)

    def _is_ready(self, share: Share, holding: Holding) -> bool:
        uuid = self.uuid_of[share.device]
        needed = self._ready.get(uuid)
        if needed is None or needed != self._needed.get(uuid):
            return False
        serves = needed.want.technique is technique_of(holding)
        return serves and share.mig in self._access[uuid]

    def access(self, holding: Holding) -> tuple[Access, ...]:
        """What programs get of each share of a lease that is ready."""
        return tuple(self._access[self.uuid_of[share.device]][share.mig] for share in holding.shares)

    def instance(self, uuid: str, cut: MigInstance | None) -> int | None:
        """The driver's number of an instance that is there."""
        access = self._access.get(uuid, {}).get(cut) if cut is not None else None
        return access.instance if access is not None else None

    def errors(self) -> Iterator[tuple[str, CardError, bool]]:
        """The devices that could not be made ready since this was last asked.

        The last of each is whether that was for leases that do not run yet, beside some that do.
        """
        errors, self._errors = self._errors, {}
        for uuid, (needed, error) in errors.items():
            running = self._running.get(uuid, Needed())
            yield self.device_of[uuid], error, running.want.technique is not None and running != needed

    def again(self, device: str) -> None:
        """Whatever went wrong with the device is mended: look at it once more."""
        self._refused.pop(self.uuid_of[device], None)
        self._ready.pop(self.uuid_of[device], None)

    async def settled(self) -> None:
        """Returns when there is nothing more to do at present."""
        while self._task is not None:
            await asyncio.shield(self._task)

    async def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # For what starts containers

    def describe(self, holding: Holding, node: Object) -> None:
        """Writes the lease's CDI specification; without one its pods run all the same."""
        try:
            found = gpu(node, self._machine.mps_directories)
            cdi.write(self._machine.data / "cdi", f"{holding.agent}.{holding.node}", found)
        except OSError as error:
            _log.warning("a CDI specification cannot be written", node=holding.node, error=str(error))

    def keep_only(self, holdings: Iterable[Holding]) -> None:
        """Removes the specifications of leases that are over."""
        names = [f"{holding.agent}.{holding.node}" for holding in holdings]
        cdi.keep_only(self._machine.data / "cdi", names)


def technique_of(holding: Holding) -> Technique | None:
    """What keeps the lease apart; None for one of devices that were emulated when it was granted."""
    return Technique(holding.enforcement) if holding.enforcement in list(Technique) else None


def needs(holdings: Iterable[Holding], uuid_of: Mapping[str, str]) -> dict[str, Needed]:
    """What each card has to be for these leases, by UUID.

    A card whose leases need different things is left out, and as it is: none of them starts until the others
    are over.
    """
    by_card: dict[str, list[tuple[Share, Technique]]] = {uuid: [] for uuid in uuid_of.values()}
    for holding in holdings:
        technique = technique_of(holding)
        for share in holding.shares:
            if share.device in uuid_of and technique is not None:
                by_card[uuid_of[share.device]].append((share, technique))
    found = {}
    for uuid, shares in by_card.items():
        try:
            want: Wanted = wanted((technique, share.mig) for share, technique in shares)
        except Invalid as error:
            _log.error("a card was sold twice", card=uuid, error=error.message)
            continue
        if want.technique is Technique.MPS:
            percent = max(max(1, share.milli * 100 // _WHOLE) for share, _ in shares)
            found[uuid] = Needed(want, percent, max(share.memory_mib for share, _ in shares))
        else:
            found[uuid] = Needed(want)
    return found

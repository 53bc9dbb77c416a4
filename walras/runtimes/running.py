"""One attempt at a container while it runs: its hooks, its probes, and how it is brought to its end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from walras.core.errors import WalrasError
from walras.runtimes import hooks
from walras.runtimes.base import KILLED, ExitStatus, Process
from walras.runtimes.probing import Kind, Probed, Prober
from walras.runtimes.records import Record
from walras.runtimes.waiting import Grace, cancelled, first

if TYPE_CHECKING:
    from walras.runtimes.podworker import PodWorker

log = structlog.get_logger(__name__)

Object = dict[str, Any]
# What a program has after SIGTERM at least, however long its hook took.
LEAST_S: Final = 2.0


class Running:
    """`begun` is called when the program runs and its postStart hook has ended."""

    def __init__(
        self,
        worker: PodWorker,
        container: Object,
        record: Record,
        process: Process,
        container_id: str,
        begun: Callable[[], None],
    ) -> None:
        self.process, self.record, self._id = process, record, container_id
        self._worker, self._container, self._begun = worker, container, begun
        self._began_ms = worker.services.clock.now_ms()
        self._told = False
        self._end: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[ExitStatus] = asyncio.ensure_future(process.wait())
        self._probed = Probed(
            container,
            process,
            worker.dial,
            worker.address,
            worker.services.sleep,
            worker.event,
            self._changed,
            partial(worker.services.probes.of, worker.cluster),
        )

    def _changed(self) -> None:
        self._begun()
        self._worker.publish()

    async def watch(self) -> ExitStatus:
        """Returns when the program and all that was to do about it has ended."""
        worker, name = self._worker, self.record.name
        worker.running[name] = self
        if worker.grace is not None:
            # The end of the pod was asked for while the program was on its way.
            self.end(f"Stopping container {name}", worker.grace)
        hook = (self._container.get("lifecycle") or {}).get("postStart")
        if hook is None:
            self._runs()
        beside = asyncio.ensure_future(self._attend(hook))
        beside.add_done_callback(_complain)
        try:
            return await asyncio.shield(self._ended)
        finally:
            del worker.running[name]
            await cancelled(beside, *((self._end,) if self._end is not None else ()))
            if not self._told:
                self._runs(good=False)
            self._begun()

    async def _attend(self, hook: Object | None) -> None:
        if hook is not None:
            good = await self._post_start(hook)
            self._runs(good=good)
            if not good:
                self.end("FailedPostStartHook", self._worker.own_grace())
                return
        self._probes_failed(await Prober(self._probed, self.record).run())

    def _runs(self, *, good: bool = True) -> None:
        """The program counts as running, which it does not while its postStart hook is at work."""
        startup, readiness = (self._container.get(f"{kind}Probe") for kind in ("startup", "readiness"))
        self.record.run(
            self._id,
            self._began_ms,
            started=startup is None and good,
            ready=readiness is None and good,
        )
        self._told = True
        self._changed()

    async def _post_start(self, hook: Object) -> bool:
        try:
            await hooks.run(self._probed, hook)
        except WalrasError:
            self._worker.event("Warning", "FailedPostStartHook", "PostStartHook failed")
            return False
        return True

    def _probes_failed(self, kind: Kind) -> None:
        said = f"Container {self.record.name} failed {kind} probe"
        if self.record.restart.again(KILLED):
            said += ", will be restarted"
        grace_s = (self._container.get(f"{kind}Probe") or {}).get("terminationGracePeriodSeconds")
        self.end(said, self._worker.own_grace(grace_s))

    def end(self, message: str, grace: Grace, after: Sequence[Running] = ()) -> None:
        """Has the program end within the grace, but not before those in `after`; once is enough."""
        if self._end is None:
            self._end = asyncio.ensure_future(self._bring_to_end(message, grace, after))
            self._end.add_done_callback(_complain)

    async def _bring_to_end(self, message: str, grace: Grace, after: Sequence[Running]) -> None:
        self._worker.event("Normal", "Killing", message)
        try:
            if grace.seconds > 0:
                await self._ask_to_end(grace, after)
        finally:
            await self.process.kill()

    async def _ask_to_end(self, grace: Grace, after: Sequence[Running]) -> None:
        over = asyncio.ensure_future(grace.over())
        try:
            if (hook := (self._container.get("lifecycle") or {}).get("preStop")) is not None:
                await first(self._pre_stop(hook), asyncio.shield(over))
            if after:
                others = asyncio.gather(*(asyncio.shield(each._ended) for each in after))
                await first(others, asyncio.shield(over))
            self.process.signal(signal.SIGTERM)
            await (self._worker.services.sleep(LEAST_S) if over.done() else over)
        finally:
            await cancelled(over)

    async def _pre_stop(self, hook: Object) -> None:
        try:
            await hooks.run(self._probed, hook)
        except WalrasError:
            self._worker.event("Warning", "FailedPreStopHook", "PreStopHook failed")


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("container not attended", error=repr(error))

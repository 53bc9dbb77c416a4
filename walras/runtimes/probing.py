"""Startup, liveness and readiness probes of one container while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Literal

from walras.core.errors import BadRequest, ServiceUnavailable, WalrasError
from walras.runtimes import actions, health
from walras.runtimes.base import Process
from walras.runtimes.environment import expand
from walras.runtimes.records import Record
from walras.runtimes.waiting import Sleep, cancelled, within

Object = Mapping[str, Any]
Kind = Literal["startup", "liveness", "readiness"]
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Probed:
    """What probes are about, and whom they tell. `address` is the pod's own.

    `slot` is held while a program runs in the container: starting one is work that all agents wait for.
    """

    container: Object
    process: Process
    dial: actions.Dial
    address: Callable[[], str]
    sleep: Sleep
    event: Callable[[str, str, str], None]
    changed: Callable[[], None]
    slot: Callable[[], AbstractAsyncContextManager[None]]


class Prober:
    """Keeps `started` and `ready` of the record true to what the probes say."""

    def __init__(self, probed: Probed, record: Record) -> None:
        self._probed, self._record = probed, record

    async def run(self) -> Kind:
        """The kind of probe for whose failure the container has to go; goes on as long as there is none."""
        if not self._record.started:
            startup = self._spec("startup")
            if startup is not None and not await self._watch("startup", startup, lambda _: True):
                return "startup"
            self._record.started = True
            self._record.ready = self._spec("readiness") is None
            self._probed.changed()
        readiness = asyncio.ensure_future(self._readiness())
        try:
            if (liveness := self._spec("liveness")) is None:
                await readiness
                await asyncio.Event().wait()
            else:
                await self._watch("liveness", liveness, lambda good: not good)
            return "liveness"
        finally:
            await cancelled(readiness)

    def _spec(self, kind: Kind) -> Object | None:
        found: Object | None = self._probed.container.get(f"{kind}Probe")
        return found

    async def _readiness(self) -> None:
        def follow(good: bool) -> bool:
            if self._record.ready != good:
                self._record.ready = good
                self._probed.changed()
            return False

        if (spec := self._spec("readiness")) is not None:
            await self._watch("readiness", spec, follow)

    async def _watch(self, kind: Kind, spec: Object, enough: Callable[[bool], bool]) -> bool:
        """Probes until `enough` of a result that the thresholds let count: that result."""
        least = {True: int(spec.get("successThreshold") or 1), False: int(spec.get("failureThreshold") or 3)}
        last, length = None, 0
        await self._probed.sleep(float(spec.get("initialDelaySeconds") or 0))
        while True:
            good = await self._once(kind, spec)
            # A probe that could not be made counts for nothing.
            if good is not None:
                length = length + 1 if good == last else 1
                last = good
                if length >= least[good] and enough(good):
                    return good
            await self._probed.sleep(float(spec.get("periodSeconds") or 10))

    async def _once(self, kind: Kind, spec: Object) -> bool | None:
        timeout_s = float(spec.get("timeoutSeconds") or 1)
        named = kind.capitalize()
        error: WalrasError | None = None
        for _ in range(_TRIES):
            try:
                warning = await self._probe(spec, timeout_s)
            except actions.Failed as failed:
                self._probed.event("Warning", "Unhealthy", f"{named} probe failed: {failed.message}")
                return False
            except WalrasError as found:
                error = found
            else:
                if warning:
                    self._probed.event("Warning", "ProbeWarning", f"{named} probe warning: {warning}")
                return True
        assert error is not None
        said = f"{named} probe errored and resulted in unknown state: {error.message}"
        self._probed.event("Warning", "Unhealthy", said)
        return None

    async def _probe(self, spec: Object, timeout_s: float) -> str:
        """A warning, or "". Raises Failed, other WalrasErrors when it could not be made."""
        sleep, dial = self._probed.sleep, self._probed.dial
        address = self._probed.address()
        if (command := spec.get("exec")) is not None:
            return await self._exec(command, timeout_s)
        if (wanted := spec.get("httpGet")) is not None:
            actions.check_host(str(wanted.get("host") or ""), (address,))
            asking = actions.get(dial, wanted, self._probed.container, address, "probe")
            try:
                answer = await within(sleep, timeout_s, asking)
            except TimeoutError:
                raise actions.Failed(
                    f"no answer to GET {wanted.get('path') or '/'} within {_spoken(timeout_s)} "
                    "(Client.Timeout exceeded while awaiting headers)"
                ) from None
            if answer.elsewhere:
                return f"Probe terminated redirects, Response body: {answer.body}"
            if not 200 <= answer.status < 400:
                raise actions.Failed(f"HTTP probe failed with statuscode: {answer.status}")
            return ""
        if (wanted := spec.get("tcpSocket")) is not None:
            actions.check_host(str(wanted.get("host") or ""), (address,))
            port = actions.port_of(self._probed.container, wanted["port"])
            await self._in_time(
                actions.connect(dial, port), timeout_s, f"dial tcp {address}:{port}: i/o timeout"
            )
            return ""
        if (wanted := spec.get("grpc")) is not None:
            checking = health.check(dial, int(wanted["port"]), str(wanted.get("service") or ""))
            said = f"timeout: health rpc did not complete within {_spoken(timeout_s)}"
            await self._in_time(checking, timeout_s, said)
            return ""
        raise BadRequest(f"missing probe handler for {self._probed.container['name']}")

    async def _exec(self, action: Object, timeout_s: float) -> str:
        container = self._probed.container
        env = {each["name"]: str(each["value"]) for each in container.get("env") or () if "value" in each}
        argv = tuple(expand(str(word), env) for word in action.get("command") or ())
        try:
            async with self._probed.slot():
                running = actions.execute(self._probed.process, argv)
                code, said = await within(self._probed.sleep, timeout_s, running)
        except TimeoutError:
            words = " ".join(argv)
            raise actions.Failed(
                f'command timed out: "{words}" timed out after {_spoken(timeout_s)}'
            ) from None
        if code:
            raise actions.Failed(said)
        return ""

    async def _in_time(self, work: Awaitable[None], timeout_s: float, said: str) -> None:
        try:
            await within(self._probed.sleep, timeout_s, work)
        except TimeoutError:
            raise actions.Failed(said) from None
        except ServiceUnavailable as error:
            raise actions.Failed(error.message) from error


def _spoken(seconds: float) -> str:
    return f"{seconds:g}s"

"""What happens to cards, as NVML's events tell it: XIDs, and cards that fall off the bus."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pynvml

from walras.runtimes.gpus.cards import XIDS_OF_PROGRAMS, Fault
from walras.runtimes.gpus.nvml import asking


class Events:
    """Cards whose driver has no events are passed over. `close` waits for a `wait` in another thread."""

    def __init__(self, uuids: Sequence[str]) -> None:
        self._uuids = tuple(uuids)
        self._set: Any = None
        self._lock = threading.Lock()

    def wait(self, timeout_ms: int) -> tuple[Fault, ...]:
        """What happened, empty when nothing did in that time. Raises CardError where there are no events."""
        with self._lock, asking("waiting for events"):
            return self._wait(timeout_ms)

    def _wait(self, timeout_ms: int) -> tuple[Fault, ...]:
        if self._set is None:
            self._set = self._register()
        try:
            event = pynvml.nvmlEventSetWait(self._set, timeout_ms)
        except pynvml.NVMLError_Timeout:
            return ()
        if event.eventType != pynvml.nvmlEventTypeXidCriticalError:
            return ()
        uuid = pynvml.nvmlDeviceGetUUID(event.device)
        return (of_xid(uuid.decode() if isinstance(uuid, bytes) else uuid, int(event.eventData)),)

    def _register(self) -> Any:
        events = pynvml.nvmlEventSetCreate()
        for uuid in self._uuids:
            with suppress(pynvml.NVMLError):
                handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
                wanted = pynvml.nvmlEventTypeXidCriticalError
                supported = pynvml.nvmlDeviceGetSupportedEventTypes(handle)
                pynvml.nvmlDeviceRegisterEvents(handle, wanted & supported, events)
        return events

    def close(self) -> None:
        with self._lock:
            if self._set is not None:
                with suppress(pynvml.NVMLError):
                    pynvml.nvmlEventSetFree(self._set)
                self._set = None


def of_xid(uuid: str, xid: int) -> Fault:
    """Fatal unless it is one that programs cause on a healthy card."""
    fatal = xid not in XIDS_OF_PROGRAMS
    what = "the card failed" if fatal else "a program on it failed, not the card"
    return Fault(uuid, f"Xid{xid}", f"the driver reports XID {xid}: {what}", fatal)

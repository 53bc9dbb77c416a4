"""What bounds a pod though nobody deletes it: its deadline, and the disk that it may take.

As kubelet's active deadline handler and the local storage part of its eviction manager.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from walras.core.errors import WalrasError
from walras.core.quantity import parse_quantity
from walras.runtimes import imagedisks, messages
from walras.runtimes.pressure import larger, quantity
from walras.runtimes.status import Verdict
from walras.runtimes.usage import added, disk_bytes
from walras.runtimes.volumes import CLAIMS, Volume
from walras.runtimes.waiting import first

if TYPE_CHECKING:
    from walras.runtimes.podworker import PodWorker

Object = Mapping[str, Any]
PERIOD_S: Final = 10.0
# When the disk of all pods runs out.
TIGHT_PERIOD_S: Final = 1.0
# Looking takes at most this part of the time.
_PART: Final = 20
# For a pod that names no limit.
POD_BYTES_MAX: Final = 10 << 30
_NAMED: Final = "ephemeral-storage"
EVICTED: Final = "Evicted"
_EVICTION_GRACE_S: Final = 1.0
_DEADLINE: Final = Verdict(
    "Failed", "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
)


async def deadline(worker: PodWorker) -> None:
    """Ends the pod when it has run for as long as it may. That may be said, and be made less, meanwhile."""
    clock, changed = worker.services.clock, worker.respecified
    began_ms = clock.now_ms()
    while not worker.stopping:
        changed.clear()
        seconds: int | None = worker.pod["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            await changed.wait()
            continue
        left_s = seconds - (clock.now_ms() - began_ms) / 1000
        if left_s <= 0 or not await first(changed.wait(), worker.services.sleep(left_s)):
            worker.fail(_DEADLINE, "Normal", worker.grace_s())
            return


async def storage(worker: PodWorker, volumes: Mapping[str, Volume]) -> None:
    """Evicts the pod when it takes more disk than it may; looks now and then."""
    clock, wait_s, disk = asyncio.get_running_loop().time, PERIOD_S, worker.services.disk
    while await worker.pause(wait_s):
        began_s = clock()
        if reason := await _exceeded(worker, volumes):
            worker.fail(Verdict("Failed", EVICTED, reason), "Warning", _EVICTION_GRACE_S)
            return
        period_s = TIGHT_PERIOD_S if disk.is_tight else PERIOD_S
        wait_s = max(period_s, (clock() - began_s) * _PART)


async def _exceeded(worker: PodWorker, volumes: Mapping[str, Volume]) -> str:
    """Which bound the pod, or the disk, is beyond, in words; "" for none."""
    pod, ref, disk = worker.pod, worker.ref, worker.services.disk
    own = {
        name: await asyncio.to_thread(each.process.disk_bytes) for name, each in list(worker.running.items())
    }
    total = added(messages.disk_bytes(worker.services.places, ref), *own.values())
    # Beyond what bounds the pod: each has a bound for itself.
    copies: int | None = 0
    for volume in pod["spec"].get("volumes") or ():
        name = str(volume["name"])
        found = volumes.get(name)
        if found is None or not found.writable or found.in_memory:
            continue
        used = await asyncio.to_thread(disk_bytes, found.path)
        if (empty := volume.get("emptyDir")) is not None:
            total = added(total, used)
            limit = _bytes(empty.get("sizeLimit"))
            if limit and (used is None or used > limit):
                return f'Usage of EmptyDir volume "{name}" exceeds the limit "{empty["sizeLimit"]}". '
        elif (claim := volume.get("persistentVolumeClaim")) is not None:
            room = _capacity(worker, str(claim.get("claimName")))
            if room and (used is None or used > _bytes(room)):
                what = f'Usage of PersistentVolumeClaim "{claim.get("claimName")}"'
                return f'{what} exceeds its capacity "{room}". '
        else:
            copies = added(copies, used)
            if used is None or used > imagedisks.BYTES_MAX:
                said = quantity(imagedisks.BYTES_MAX)
                return f'Usage of image volume "{name}" exceeds the limit "{said}". '
    limits = _amounts(pod, "limits")
    limit = sum(map(_bytes, limits.values())) or POD_BYTES_MAX
    if total is None or total > limit:
        said = next(iter(limits.values())) if len(limits) == 1 else str(limit)
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {said}. "
    for name, amount in limits.items():
        used = own.get(name, 0)
        if _bytes(amount) and (used is None or used > _bytes(amount)):
            return f'Container {name} exceeded its local ephemeral storage limit "{amount}". '
    asked = {name: _bytes(amount) for name, amount in _amounts(pod, "requests").items()}
    # By what was noted before, when all have been looked at.
    said = disk.goes(ref.key)
    disk.note(ref.key, added(total, copies), sum(asked.values()))
    return said and said + larger(own, asked)


def _capacity(worker: PodWorker, claim: str) -> str:
    found = worker.lookup(CLAIMS, claim)
    if found is None:
        return ""
    status, spec = found.get("status") or {}, found["spec"]
    capacity = status.get("capacity") or (spec.get("resources") or {}).get("requests") or {}
    return str(capacity.get("storage") or "")


def _amounts(pod: Object, kind: str) -> dict[str, str]:
    """The limits, or requests, of each container that names one."""
    every = {
        str(each["name"]): (each.get("resources") or {}).get(kind) or {} for each in pod["spec"]["containers"]
    }
    return {name: str(amounts[_NAMED]) for name, amounts in every.items() if _NAMED in amounts}


def _bytes(amount: Any) -> int:
    """0 for no amount."""
    try:
        return parse_quantity(str(amount)) if amount is not None else 0
    except WalrasError:
        return 0

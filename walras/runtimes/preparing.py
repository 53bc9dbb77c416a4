"""What a pod needs before its containers run: a runtime, and volumes, which are kept up to date meanwhile."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from walras.core.errors import WalrasError
from walras.runtimes import imagedisks, podfiles
from walras.runtimes.admission import host_asked, node_limits, pod_limits
from walras.runtimes.base import NoRuntime
from walras.runtimes.environment import ConfigError, EnvSource
from walras.runtimes.network.networks import NAME_SERVER
from walras.runtimes.refreshing import followed, refresh
from walras.runtimes.volumefiles import token_lifetime_s
from walras.runtimes.volumes import Volume, prepare, renew
from walras.runtimes.waiting import first

if TYPE_CHECKING:
    from walras.runtimes.podworker import PodWorker

_RETRY_S: Final = 5.0
_RENEW_AT: Final = 0.8
# Changes that come together are written together.
_SETTLE_S: Final = 1.0


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Preparing:
    """Says as events of the pod what stands in the way."""

    def __init__(self, worker: PodWorker) -> None:
        self._worker = worker

    async def handled(self) -> bool:
        """Finds the runtime that the pod's class names; False when there is none before the pod is to end.

        A pod that asks for the machine's own namespaces waits too: were it Failed, its controller would make
        another at once.
        """
        worker, said = self._worker, ""
        if why := host_asked(worker.pod):
            worker.event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {why}")
            worker.publish()
            await worker.ending()
            return False
        while not worker.stopping:
            try:
                handler = worker.services.handler(worker.cluster, worker.pod)
                worker.ref = replace(worker.ref, handler=handler)
                worker.services.runtime.traits(worker.ref)
            except WalrasError as error:
                message = f"Failed to create pod sandbox: {error.message}"
                if message != said:
                    worker.event("Warning", "FailedCreatePodSandBox", message)
                    worker.publish()
                said = message
                if isinstance(error, NoRuntime):
                    await worker.ending()
                else:
                    await worker.pause(_RETRY_S)
            else:
                return True
        return False

    async def networked(self) -> bool:
        """Gives the pod a network where there is one to be had; False when it is to end before."""
        worker, said = self._worker, ""
        networks = worker.services.networks
        traits = worker.services.runtime.traits(worker.ref)
        if networks is None or not traits.networked:
            return not worker.stopping
        while not worker.stopping:
            try:
                found = await networks.join(worker.ref, machine=traits.machine)
                if found is not None:
                    worker.network = found
                    worker.files = podfiles.write(
                        worker.services.places, worker.ref, worker.pod, found.address, str(NAME_SERVER)
                    )
            except OSError as error:
                message = f"Failed to create pod sandbox: its network cannot be made: {error}"
                if message != said:
                    worker.event("Warning", "FailedCreatePodSandBox", message)
                said = message
                await worker.pause(_RETRY_S)
            else:
                return True
        return False

    async def volumes(self) -> dict[str, Volume] | None:
        """Waits for what volumes are made from; None when the pod is to end before."""
        worker, said = self._worker, ""
        while not worker.stopping:
            try:
                if not await imagedisks.fetch(worker):
                    return None
                return prepare(worker.services.places, worker.cluster, self._source(), self._memory_bytes())
            except (WalrasError, OSError) as error:
                message = f"MountVolume.SetUp failed: {error}"
                if message != said:
                    worker.event("Warning", "FailedMount", message)
                    worker.publish()
                said = message
                if isinstance(error, ConfigError):
                    await worker.configs_changed()
                elif isinstance(error, OSError):
                    # A full disk is full until somebody makes room, which nothing tells of.
                    await worker.pause(_RETRY_S)
                else:
                    await worker.ending()
        return None

    def _memory_bytes(self) -> int:
        """What a volume in memory has at most, as the kubelet has it; 0 where it is on disk."""
        worker = self._worker
        if not worker.services.runtime.traits(worker.ref).counts_memory:
            return 0
        known = (node_limits(worker.node).memory_bytes, pod_limits(worker.pod).memory_bytes)
        return min(filter(None, known), default=_machine_bytes() // 2)

    def _source(self) -> EnvSource:
        worker = self._worker
        return EnvSource(
            worker.pod,
            worker.node,
            worker.lookup,
            partial(worker.services.token, worker.cluster, worker.pod),
            worker.address(),
        )

    async def updates(self) -> None:
        """Writes volumes anew when what they are made from has changed, at most once a second."""
        worker = self._worker
        if not followed(worker.pod):
            return
        configs, labels = worker.services.configs, worker.relabelled
        event = configs.wait(worker.cluster, worker.namespace)
        try:
            while not worker.stopping:
                event.clear()
                labels.clear()
                try:
                    refresh(worker.services.places, worker.cluster, self._source())
                except OSError as error:
                    worker.event("Warning", "FailedMount", f"MountVolume.SetUp failed: {error}")
                await first(event.wait(), labels.wait())
                await worker.pause(_SETTLE_S)
        finally:
            configs.forget(worker.cluster, worker.namespace, event)

    async def renewals(self) -> None:
        """Writes the tokens in the pod's volumes anew when four fifths of their time are over."""
        worker = self._worker
        lifetime_s = token_lifetime_s(worker.pod)
        while lifetime_s and await worker.pause(lifetime_s * _RENEW_AT):
            try:
                renew(worker.services.places, worker.cluster, self._source())
            except (WalrasError, OSError) as error:
                worker.event("Warning", "FailedMount", f"MountVolume.SetUp failed: {error}")

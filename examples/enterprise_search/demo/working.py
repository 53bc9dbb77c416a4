"""The Jobs of one agent that trains or embeds, and how far they are."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import httpx
import numpy as np
from embed import CHUNK, done

from demo.calibrate import Speed
from demo.kube import Cluster, Refused
from demo.manifests import job
from demo.setup import BATCH_AGENT, EMBEDDING, TRAINING, Setup

JOBS = "apis/batch/v1/namespaces/default/jobs"
_LOOK_S = 0.5


def progress(data: Path, agent: str) -> tuple[int, float]:
    """(tokens, loss) of an agent's checkpoint in the server's data folder."""
    path = volume(data, agent) / "checkpoint.npz"
    if not path.exists():
        return 0, 0.0
    with np.load(path) as stored:
        return int(stored["tokens"]), float(stored["loss"])


def embedded(data: Path) -> int:
    """Documents that the batch agent has embedded."""
    return done(volume(data, BATCH_AGENT)) * CHUNK


def volume(data: Path, agent: str) -> Path:
    return data / "agents" / agent / "volumes" / "default" / "work"


class Worker:
    """Keeps an agent's work submitted: one endless Job, or one finite Job after the other."""

    def __init__(
        self, agent: str, cluster: Cluster, setup: Setup, speed: Speed, cpu_per_device: float, data: Path
    ) -> None:
        self.agent, self._cluster, self._setup, self._data = agent, cluster, setup, data
        cpu_s = setup.finite_device_seconds * cpu_per_device
        self._tokens = int(cpu_s * speed.tokens_per_cpu_s)
        self._chunks = max(1, int(cpu_s * speed.documents_per_cpu_s / CHUNK))

    async def run(self) -> None:
        for number in itertools.count(1):
            name = f"{self.agent}-{number}"
            await self._cluster.apply(JOBS, self._job(name))
            await self._over(name)
            await self._cluster.delete(f"{JOBS}/{name}")

    def _job(self, name: str) -> dict[str, object]:
        setup, finite = self._setup, self._setup.finite_device_seconds > 0
        if self.agent == BATCH_AGENT:
            bound = ["--chunks", str(self._chunks)] if finite else []
            return job(name, "embed.py", bound, 1, setup.batch, EMBEDDING)
        target = progress(self._data, self.agent)[0] + self._tokens
        bound = ["--tokens", str(target)] if finite else []
        worth = TRAINING[self.agent]
        return job(name, "train.py", bound, setup.train_parallelism, setup.train, worth)

    async def _over(self, name: str) -> None:
        """Return when a worker of it said that the work is done."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                found = await self._cluster.get(f"{JOBS}/{name}")
            except (Refused, httpx.HTTPError):
                continue
            if self._setup.finite_device_seconds and found.get("status", {}).get("succeeded"):
                return

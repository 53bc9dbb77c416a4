"""Files of claims: they stay while a pod uses them, and are nothing to the next by the name."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from support.kubelet import ACME, Events, World, in_world

from walras.core.clock import SequenceIds, VirtualClock
from walras.kube.api import API
from walras.kube.store.sqlite import MEMORY, SqliteStore
from walras.runtimes.fake import FakeRuntime
from walras.runtimes.kubelet import Kubelet
from walras.runtimes.volumes import CLAIMS

CLAIM = {
    "metadata": {"name": "data", "namespace": "default"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    "status": {"phase": "Bound"},
}
USES: dict[str, Any] = {
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    "container": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
}


def place_of(world: World, number: int) -> Path:
    """Where the files are that the container started as such a number was given."""
    (mount,) = (each for each in world.runtime.processes[number].spec.mounts if each.target == "/data")
    return Path(mount.source)


def test_the_files_of_a_deleted_claim_stay_as_long_as_a_pod_uses_them(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.api.create(ACME, CLAIMS, CLAIM)
        await world.pod("p", **USES)
        await world.phase("p", "Running")
        place = place_of(world, 0)
        await world.api.delete(ACME, CLAIMS, "default", "data")
        assert world.api.find(ACME, CLAIMS, "default", "data") is None
        assert place.exists()
        await world.api.delete(ACME, "pods", "default", "p", grace_seconds=0)
        await world.until(lambda: not place.exists())

    in_world(tmp_path, story)


def _count(directory: Path, name: str) -> int:
    """Files of the name, while others are deleted."""
    return sum(name in files for _, _, files in os.walk(directory))


@pytest.mark.parametrize("used", [True, False])
def test_a_claim_by_the_name_of_one_that_is_gone_is_empty(tmp_path: Path, used: bool) -> None:
    """However soon it comes: while a pod of the other ends still, or its files are deleted."""

    async def story(world: World) -> None:
        await world.api.create(ACME, CLAIMS, CLAIM)
        await world.pod("first", **USES)
        await world.phase("first", "Running")
        place = place_of(world, 0)
        (place / "secret").write_text("x")
        if not used:
            await world.api.delete(ACME, "pods", "default", "first", grace_seconds=0)
            await world.until(lambda: not world.kubelet._workers)
        await world.api.delete(ACME, CLAIMS, "default", "data")
        await world.api.create(ACME, CLAIMS, CLAIM)
        await world.pod("second", **USES)
        await world.phase("second", "Running")
        found = place_of(world, 1)
        assert [each.name for each in found.iterdir()] == []
        (found / "own").write_text("x")
        if used:
            # Of the one that runs nothing is taken away.
            assert _count(tmp_path / "agents", "secret") == 1
            await world.api.delete(ACME, "pods", "default", "first", grace_seconds=0)
        await world.until(lambda: not _count(tmp_path / "agents", "secret"))
        assert (found / "own").exists()

    in_world(tmp_path, story)


def test_the_files_of_a_claim_that_went_with_the_server_are_gone_at_the_next_start(tmp_path: Path) -> None:
    for name in ("data", "gone", ".data.0"):
        (tmp_path / "agents" / ACME / "volumes" / "default" / name).mkdir(parents=True)

    async def run() -> None:
        clock = VirtualClock()
        api = API(SqliteStore(MEMORY), clock, SequenceIds())
        await api.create_cluster(ACME)
        await api.create(ACME, CLAIMS, CLAIM)
        kubelet = Kubelet(api, FakeRuntime(), clock, Events(), tmp_path)
        await kubelet.start()
        await kubelet.stop(0)
        api.store.close()

    asyncio.run(run())
    assert [each.name for each in (tmp_path / "agents" / ACME / "volumes" / "default").iterdir()] == ["data"]


def test_an_agent_by_the_name_of_one_that_is_gone_finds_nothing_of_it(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        node = world.api.get(ACME, "nodes", "", "base")
        places = []
        for number in range(2):
            await world.api.create(ACME, CLAIMS, CLAIM)
            await world.pod("p", **USES)
            await world.phase("p", "Running")
            place = place_of(world, number)
            places.append(place)
            assert not any(place.iterdir())
            (place / "secret").write_text("x")
            await world.api.delete_cluster(ACME)
            # Its pod has not ended yet.
            assert not await world.kubelet.forget_agent(ACME)
            async with asyncio.timeout(5):
                while not await world.kubelet.forget_agent(ACME):  # noqa: ASYNC110
                    await asyncio.sleep(0)
            assert not world.runtime.processes[number].alive
            assert not place.exists()
            assert world.runtime.forgotten == [ACME] * (number + 1)
            await world.api.create_cluster(ACME)
            await world.api.create(ACME, "nodes", {"metadata": {"name": "base"}, "status": node["status"]})
        assert places[0] == places[1]

    in_world(tmp_path, story)

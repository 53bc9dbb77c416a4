"""Disks out of images: which volumes are meant, and what becomes of them without an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.kubelet import World, in_world

from walras.runtimes import imagedisks
from walras.tenants.virtual.words import DISKS

Object = dict[str, Any]
DISK = {"name": "v", "image": {"reference": "quay.io/x/disk:1"}}


def pod(*targets: str) -> Object:
    mounts = [{"name": "v", "mountPath": each} for each in targets]
    return {"spec": {"containers": [{"name": "main", "volumeMounts": mounts}], "volumes": [DISK]}}


@pytest.mark.parametrize(
    ("targets", "meant"),
    [((f"{DISKS}/v",), True), (("/models",), False), ((f"{DISKS}/v", "/models"), False), ((), False)],
)
def test_images_are_disks_where_machines_have_disks_and_nowhere_else(
    targets: tuple[str, ...], meant: bool
) -> None:
    assert [each["name"] for each in imagedisks.of(pod(*targets))] == (["v"] if meant else [])


def test_without_an_engine_the_pod_waits_and_is_told_why(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        mount = {"name": "v", "mountPath": f"{DISKS}/v"}
        await world.pod("box", volumes=[DISK], container={"volumeMounts": [mount]})
        await world.until(lambda: world.events.of("FailedMount"))
        (said,) = world.events.of("FailedMount")
        assert "need the container runtime" in said and world.runtime.processes == []

    in_world(tmp_path, story)

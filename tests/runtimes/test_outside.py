"""Images in an engine of the operator's, which has others too: one that was started for tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.registry import Registry, serving
from support.runtimes import BUSYBOX, ENGINE, file_system, hearing

from walras.runtimes.base import ContainerSpec, ImageError, Limits, PodRef
from walras.runtimes.engine import collecting
from walras.runtimes.engine.images import inspect
from walras.runtimes.engine.runtime import ContainerRuntime

pytestmark = pytest.mark.skipif(
    not (ENGINE and BUSYBOX) or os.geteuid() != 0, reason="no engine in WALRAS_TEST_ENGINE"
)
MINE, THEIRS = PodRef("acme", "base", "uid-1", "p"), PodRef("rival", "base", "uid-2", "p")
KEY = {"username": "me", "password": "secret"}
CONFIG = {"Entrypoint": ["/bin/echo", "by", "itself"], "Env": ["PATH=/bin"]}
Story = Callable[[ContainerRuntime], Awaitable[None]]


def with_engine(data_dir: Path, registry: Registry, story: Story) -> None:
    async def run() -> None:
        (data_dir / "engine").mkdir(exist_ok=True)
        text = f'[[registry]]\nlocation = "127.0.0.1:{registry.port}"\ninsecure = true\n'
        (data_dir / "engine" / "registries.conf").write_text(text)
        runtime = ContainerRuntime(data_dir, socket=Path(ENGINE))
        await runtime.open()
        try:
            await story(runtime)
        finally:
            await runtime.close()

    asyncio.run(run())


def test_an_image_is_pulled_with_a_key_runs_and_is_for_those_who_have_one(tmp_path: Path) -> None:
    with serving("secret") as registry:
        held = registry.add("team/app:1", file_system(), CONFIG)
        name = f"127.0.0.1:{registry.port}/team/app:1"

        async def story(runtime: ContainerRuntime) -> None:
            with pytest.raises(ImageError):
                await runtime.images.pull(MINE, name, ({**KEY, "password": "wrong"},))
            image_id, size = await runtime.images.pull(MINE, name, (KEY,))
            assert image_id == f"127.0.0.1:{registry.port}/team/app@{held}" and size > 0
            assert await runtime.images.find(MINE, name, (KEY,)) == image_id
            assert await runtime.images.find(THEIRS, name, ()) == ""
            with pytest.raises(ImageError):
                await runtime.images.pull(THEIRS, name, ())
            said = bytearray()
            spec = ContainerSpec(MINE, "main", 0, (), {}, image=name, image_id=image_id, working_dir="")
            process = await runtime.start(spec, hearing(said), Limits())
            assert (await process.wait()).code == 0 and said == b"by itself\n"
            await runtime.remove_pod(MINE)

        with_engine(tmp_path, registry, story)


def test_images_that_no_pod_pulled_are_not_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "AGE_MIN_S", 0.0)
    with serving() as registry:
        registry.add("team/app:1", file_system(), CONFIG)
        name = f"127.0.0.1:{registry.port}/team/app:1"

        async def story(runtime: ContainerRuntime) -> None:
            engine = await runtime.engine()
            await engine.load(file_system(), "registry.example/operators/own:1")
            await runtime.images.pull(MINE, name, ())
            await runtime.images.collect(1 << 40)
            assert await inspect(engine, name) is None
            assert await inspect(engine, "registry.example/operators/own:1") is not None
            await engine.call("DELETE", "/images/registry.example/operators/own:1")

        with_engine(tmp_path, registry, story)


def test_what_a_container_writes_over_its_image_counts_for_it(tmp_path: Path) -> None:
    with serving() as registry:
        registry.add("team/app:1", file_system(), CONFIG)
        name = f"127.0.0.1:{registry.port}/team/app:1"

        async def story(runtime: ContainerRuntime) -> None:
            image_id, _ = await runtime.images.pull(MINE, name, ())
            said = bytearray()
            script = "dd if=/dev/zero of=/file bs=1M count=16; echo one; sleep 1000"
            spec = ContainerSpec(
                MINE, "main", 0, ("sh", "-c", script), {}, image=name, image_id=image_id, working_dir=""
            )
            process = await runtime.start(spec, hearing(said), Limits())
            async with asyncio.timeout(20):
                while b"one\n" not in said:  # noqa: ASYNC110  only the other process knows when
                    await asyncio.sleep(0.01)
            assert 16 << 20 <= (process.disk_bytes() or 0) < 20 << 20
            await runtime.remove_pod(MINE)

        with_engine(tmp_path, registry, story)

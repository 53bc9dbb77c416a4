"""Images of a real engine, from a registry of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.registry import Registry, serving
from support.runtimes import BUSYBOX, container_offer, file_system, hearing

from walras.runtimes.base import ContainerSpec, CreateError, ImageError, Limits, PodRef, Security
from walras.runtimes.engine.runtime import ContainerRuntime

pytestmark = pytest.mark.skipif(
    container_offer().make is None or not BUSYBOX, reason=container_offer().detail
)
MINE, THEIRS = PodRef("acme", "base", "uid-1", "p"), PodRef("rival", "base", "uid-2", "p")
NOTHING = Security()
KEY = {"username": "me", "password": "secret"}
CONFIG = {
    "Entrypoint": ["/bin/echo", "by", "itself"],
    "Env": ["PATH=/bin"],
    "WorkingDir": "/tmp",
    "User": "worker",
}
Story = Callable[[ContainerRuntime], Awaitable[None]]


def with_registry(data_dir: Path, registry: Registry, story: Story) -> None:
    async def run() -> None:
        (data_dir / "engine").mkdir(exist_ok=True)
        text = f'[[registry]]\nlocation = "127.0.0.1:{registry.port}"\ninsecure = true\n'
        (data_dir / "engine" / "registries.conf").write_text(text)
        runtime = ContainerRuntime(data_dir, program="runc")
        await runtime.open()
        try:
            await story(runtime)
        finally:
            await runtime.close()

    asyncio.run(run())


async def says(runtime: ContainerRuntime, image_id: str, *command: str, security: Security = NOTHING) -> str:
    said = bytearray()
    spec = ContainerSpec(
        MINE, "main", 0, command, {}, image=image_id, image_id=image_id, working_dir="", security=security
    )
    process = await runtime.start(spec, hearing(said), Limits())
    assert (await process.wait()).code == 0
    return said.decode()


def test_an_image_is_pulled_by_its_tag_shown_by_its_digest_and_runs_as_it_says(tmp_path: Path) -> None:
    with serving() as registry:
        held = registry.add("team/app:1", file_system(), CONFIG)
        name = f"127.0.0.1:{registry.port}/team/app:1"

        async def story(runtime: ContainerRuntime) -> None:
            assert await runtime.images.find(MINE, name, ()) == ""
            image_id, size = await runtime.images.pull(MINE, name, ())
            assert image_id == f"127.0.0.1:{registry.port}/team/app@{held}" and size > 0
            assert await runtime.images.find(THEIRS, name, ()) == image_id
            assert await says(runtime, image_id) == "by itself\n"
            assert await says(runtime, image_id, "/bin/pwd") == "/tmp\n"
            assert await says(runtime, image_id, "id", "-u") == "1000\n"
            root = Security(user=0, group=7, groups=(8,))
            assert await says(runtime, image_id, "sh", "-c", "id -u; id -G", security=root) == "0\n7 8\n"
            locked = Security(user=0, read_only_root=True)
            assert await says(runtime, image_id, "sh", "-c", "touch /x 2>&1 || true", security=locked) != ""
            by_digest = f"127.0.0.1:{registry.port}/team/app@{held}"
            assert await runtime.images.find(MINE, by_digest, ()) == image_id

        with_registry(tmp_path, registry, story)


def test_what_a_registry_does_not_have_is_told(tmp_path: Path) -> None:
    with serving() as registry:

        async def story(runtime: ContainerRuntime) -> None:
            with pytest.raises(ImageError, match="manifest unknown"):
                await runtime.images.pull(MINE, f"127.0.0.1:{registry.port}/team/app:1", ())
            registry.asked.clear()
            with pytest.raises(ImageError, match="not a public address"):
                await runtime.images.pull(MINE, f"localhost:{registry.port}/team/app:1", ())
            assert not registry.asked

        with_registry(tmp_path, registry, story)


def test_an_image_that_needs_a_key_is_for_agents_that_have_one(tmp_path: Path) -> None:
    """Also when the server has started anew."""
    with serving("secret") as registry:
        registry.add("team/app:1", file_system(), CONFIG)
        name = f"127.0.0.1:{registry.port}/team/app:1"

        async def story(runtime: ContainerRuntime) -> None:
            for keys in ((), ({**KEY, "password": "wrong"},)):
                with pytest.raises(ImageError):
                    await runtime.images.pull(MINE, name, keys)
            image_id, _ = await runtime.images.pull(MINE, name, ({**KEY, "password": "wrong"}, KEY))
            assert await runtime.images.find(MINE, name, (KEY,)) == image_id
            assert await runtime.images.find(THEIRS, name, ()) == ""
            with pytest.raises(ImageError):
                await runtime.images.pull(THEIRS, name, ())

        async def again(runtime: ContainerRuntime) -> None:
            assert await runtime.images.find(MINE, name, ()) != ""
            assert await runtime.images.find(THEIRS, name, ()) == ""
            await runtime.images.pull(THEIRS, name, (KEY,))
            assert await runtime.images.find(THEIRS, name, ()) != ""

        with_registry(tmp_path, registry, story)
        with_registry(tmp_path, registry, again)


@pytest.mark.parametrize(
    ("own", "user", "why"),
    [
        ("", None, "image will run as root"),
        ("worker", None, "image has non-numeric user (worker)"),
        ("1000", 0, "runAsUser breaks non-root policy"),
    ],
)
def test_who_may_not_be_root_is_not(tmp_path: Path, own: str, user: int | None, why: str) -> None:
    with serving() as registry:
        registry.add("team/app:1", file_system(), {**CONFIG, "User": own})

        async def story(runtime: ContainerRuntime) -> None:
            image_id, _ = await runtime.images.pull(MINE, f"127.0.0.1:{registry.port}/team/app:1", ())
            with pytest.raises(CreateError) as caught:
                await says(runtime, image_id, security=Security(non_root=True, user=user))
            assert why in caught.value.message and caught.value.reason == "CreateContainerConfigError"
            assert await says(runtime, image_id, security=Security(non_root=True, user=1000)) == "by itself\n"

        with_registry(tmp_path, registry, story)

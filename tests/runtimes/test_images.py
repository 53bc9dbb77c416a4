"""Images of a real engine, from a registry of the test's own."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from support.registry import Registry, serving
from support.runtimes import BUSYBOX, container_offer, file_system, hearing, import_image

from walras.runtimes import procfs
from walras.runtimes.base import ContainerSpec, CreateError, ImageError, Limits, PodRef, Security
from walras.runtimes.engine import collecting, images, orphans, pull
from walras.runtimes.engine.book import Book
from walras.runtimes.engine.client import EngineError
from walras.runtimes.engine.images import PULLS_MAX, inspect
from walras.runtimes.engine.runtime import ContainerRuntime
from walras.runtimes.usage import disk_bytes

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


def test_an_engine_that_comes_back_leaves_alone_what_is_fetched_meanwhile(tmp_path: Path) -> None:
    async def story(runtime: ContainerRuntime) -> None:
        async with runtime.service.apart() as apart:
            left = apart.directory.parent / "storage1"
            left.mkdir()
            for pid in procfs.marked("WALRAS_ENGINE", runtime.shares.mark):
                if pid != apart.pid:
                    os.kill(pid, signal.SIGKILL)
            while runtime.service.running:  # noqa: ASYNC110  until the kernel has told of it
                await asyncio.sleep(0.01)
            await runtime.engine()
            assert apart.directory.exists() and not left.exists()
        assert not apart.directory.exists()

    with serving() as registry:
        with_registry(tmp_path, registry, story)


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


CRASHING = """
import asyncio, os, sys
from pathlib import Path
from typing import Any
from walras.runtimes.base import PodRef
from walras.runtimes.engine.book import Book
from walras.runtimes.engine.runtime import ContainerRuntime

async def main():
    runtime = ContainerRuntime(Path(sys.argv[1]), program="runc")
    await runtime.open()
    Book.note = lambda *_: os.kill(os.getpid(), 9)
    key = {"username": "me", "password": "secret"}
    await runtime.images.pull(PodRef("acme", "base", "uid-1", "p"), sys.argv[2], (key,))

asyncio.run(main())
"""


def test_an_image_whose_pull_with_a_key_was_cut_off_by_a_crash_is_nobodys(tmp_path: Path) -> None:
    with serving("secret") as registry:
        held = registry.add("team/app:1", file_system(), CONFIG)
        name = f"127.0.0.1:{registry.port}/team/app:1"

        async def nothing(_: ContainerRuntime) -> None:
            pass

        async def story(runtime: ContainerRuntime) -> None:
            engine = await runtime.engine()
            assert await inspect(engine, name) is not None
            for each in (name, f"127.0.0.1:{registry.port}/team/app@{held}"):
                assert await runtime.images.find(THEIRS, each, ()) == ""
                assert await runtime.images.find(MINE, each, (KEY,)) == ""
            with pytest.raises(ImageError):
                await runtime.images.pull(THEIRS, name, ())
            await runtime.images.pull(MINE, name, (KEY,))
            assert await runtime.images.find(MINE, name, (KEY,)) != ""
            assert await runtime.images.find(THEIRS, name, ()) == ""

        with_registry(tmp_path, registry, nothing)
        died = subprocess.run([sys.executable, "-c", CRASHING, str(tmp_path), name], timeout=120, check=False)
        assert died.returncode == -signal.SIGKILL
        with_registry(tmp_path, registry, story)


def test_an_image_whose_pull_with_a_key_is_cancelled_at_its_end_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancel(*_: object) -> None:
        raise asyncio.CancelledError

    with serving("secret") as registry:
        registry.add("team/app:1", file_system(), CONFIG)
        name = f"127.0.0.1:{registry.port}/team/app:1"

        async def story(runtime: ContainerRuntime) -> None:
            with monkeypatch.context() as patched:
                patched.setattr(Book, "note", cancel)
                with pytest.raises(asyncio.CancelledError):
                    await runtime.images.pull(MINE, name, (KEY,))
            assert await inspect(await runtime.engine(), name) is not None
            assert await runtime.images.find(THEIRS, name, ()) == ""
            # It was cut off, and nobody waits for it any more.
            assert await inspect(await runtime.engine(), name) is None

        with_registry(tmp_path, registry, story)


async def _silence(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers nothing for as long as somebody waits."""
    await _reader.read()
    writer.close()


def test_registries_that_say_nothing_hold_up_their_own_agent_alone_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as registry:
        registry.add("team/app:1", file_system(), CONFIG)
        name = f"127.0.0.1:{registry.port}/team/app:1"

        async def story(runtime: ContainerRuntime) -> None:
            async with await asyncio.start_server(_silence, "127.0.0.1", 0) as silent:
                port = silent.sockets[0].getsockname()[1]
                path = tmp_path / "engine" / "registries.conf"
                path.write_text(
                    path.read_text() + f'[[registry]]\nlocation = "127.0.0.1:{port}"\ninsecure = true\n'
                )
                waiting = [
                    asyncio.ensure_future(runtime.images.pull(THEIRS, f"127.0.0.1:{port}/x/{number}:1", ()))
                    for number in range(PULLS_MAX + 2)
                ]
                await asyncio.sleep(1)
                image_id, _ = await runtime.images.pull(MINE, name, ())
                assert image_id and not any(each.done() for each in waiting)
                for each in waiting:
                    each.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
                monkeypatch.setattr(pull, "SILENCE_S", 1.0)
                with pytest.raises(ImageError, match="no progress of the pull for 1 seconds"):
                    await runtime.images.pull(THEIRS, f"127.0.0.1:{port}/x/y:1", ())

        with_registry(tmp_path, registry, story)


def _bomb(size: int) -> bytes:
    """A file system that is small as long as nobody unpacks it."""
    text = BytesIO()
    with tarfile.open(fileobj=text, mode="w") as archive:
        entry = tarfile.TarInfo("zeros")
        entry.size = size
        archive.addfile(entry, BytesIO(bytes(size)))
    return text.getvalue()


def test_an_image_that_is_larger_unpacked_than_it_may_be_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "AGENT_BYTES_MAX", 16 << 20)
    monkeypatch.setattr(orphans, "AGE_MIN_S", 0.0)
    with serving() as registry:
        registry.add("team/bomb:1", _bomb(384 << 20), CONFIG)
        registry.add("team/app:1", file_system(), CONFIG)
        where = f"127.0.0.1:{registry.port}/team"

        async def story(runtime: ContainerRuntime) -> None:
            with pytest.raises(ImageError, match=r"takes more than|no room for the image"):
                await runtime.images.pull(THEIRS, f"{where}/bomb:1", ())
            assert await runtime.images.find(THEIRS, f"{where}/bomb:1", ()) == ""
            # Others are as before, and so is whoever tried.
            for each in (MINE, THEIRS):
                await runtime.images.pull(each, f"{where}/app:1", ())
            async with asyncio.timeout(60):
                # The engine may be at work, and what is marked goes with the next that it does.
                while (disk_bytes(runtime.service.storage) or 0) >= 32 << 20:
                    await runtime.images.look()
                    await runtime.images.pull(MINE, f"{where}/app:1", ())
            assert not list((tmp_path / "engine" / "scratch").iterdir())

        with_registry(tmp_path, registry, story)


def test_an_agent_that_has_as_many_images_as_it_may_gets_no_more_and_others_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "AGENT_BYTES_MAX", 3 << 20)
    with serving() as registry:
        for number in (1, 2):
            registry.add(f"team/app{number}:1", file_system(), {**CONFIG, "Env": [f"N={number}"]})
        one, two = (f"127.0.0.1:{registry.port}/team/app{number}:1" for number in (1, 2))

        async def story(runtime: ContainerRuntime) -> None:
            await runtime.images.pull(THEIRS, one, ())
            with pytest.raises(ImageError, match="no room for the image"):
                await runtime.images.pull(THEIRS, two, ())
            await runtime.images.pull(MINE, two, ())
            # What nobody uses gives way.
            monkeypatch.setattr(collecting, "AGE_MIN_S", 0.0)
            monkeypatch.setattr(images, "AGENT_BYTES_MAX", 2 << 20)
            await runtime.images.pull(THEIRS, two, ())
            assert await runtime.images.find(THEIRS, one, ()) == ""

        with_registry(tmp_path, registry, story)


def test_unused_images_are_collected_and_those_in_use_or_without_a_registry_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "AGE_MIN_S", 0.0)
    with serving() as registry:
        for number in (1, 2):
            registry.add(
                f"team/app{number}:1", file_system(), {**CONFIG, "Env": [f"N={number}", "PATH=/bin"]}
            )
        registry.add("team/again:1", file_system(), {**CONFIG, "Env": ["N=2", "PATH=/bin"]})
        one, two = (f"127.0.0.1:{registry.port}/team/app{number}:1" for number in (1, 2))

        async def story(runtime: ContainerRuntime) -> None:
            await asyncio.to_thread(import_image, runtime, "localhost/busybox:1")
            image_id, _ = await runtime.images.pull(MINE, one, ())
            for other in (two, two.replace("app2", "again")):
                await runtime.images.pull(MINE, other, ())
            spec = ContainerSpec(
                MINE, "main", 0, ("sleep", "1000"), {}, image=one, image_id=image_id, working_dir=""
            )
            process = await runtime.start(spec, hearing(bytearray()), Limits())
            await runtime.images.collect(1 << 40)
            assert await runtime.images.find(MINE, one, ()) == image_id
            for other in (two, two.replace("app2", "again")):
                assert await runtime.images.find(MINE, other, ()) == ""
            assert await runtime.images.find(MINE, "localhost/busybox:1", ()) != ""
            engine = await runtime.engine()
            with pytest.raises(EngineError, match="in use"):
                await engine.call("DELETE", f"/images/{one}")
            await process.kill()

        with_registry(tmp_path, registry, story)


def test_an_image_that_came_with_a_key_and_lost_its_name_at_once_is_nobodys_and_what_has_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving("secret") as registry:
        held = registry.add("team/app:1", file_system(), CONFIG)
        place = f"127.0.0.1:{registry.port}/team/app"

        async def story(runtime: ContainerRuntime) -> None:
            await asyncio.to_thread(import_image, runtime, "localhost/busybox:1")
            engine = await runtime.engine()

            async def overtaken(*args: Any) -> str:
                brought = await pull.pull(*args)
                tag = {"repo": place, "tag": "1"}
                await engine.call("POST", "/images/localhost/busybox:1/tag", params=tag)
                return brought

            with monkeypatch.context() as patched:
                patched.setattr(images, "pull", overtaken)
                with pytest.raises(ImageError, match="was changed while it was pulled"):
                    await runtime.images.pull(MINE, f"{place}:1", (KEY,))
            assert await runtime.images.find(THEIRS, f"{place}@{held}", ()) == ""
            assert await runtime.images.find(THEIRS, "localhost/busybox:1", ()) != ""

        with_registry(tmp_path, registry, story)


def test_a_disk_without_room_for_what_is_noted_of_images_fails_the_pull_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with serving() as registry:
        registry.add("team/app:1", file_system(), CONFIG)
        name = f"127.0.0.1:{registry.port}/team/app:1"

        async def story(runtime: ContainerRuntime) -> None:
            await runtime.engine()
            with monkeypatch.context() as patched:
                patched.setattr(os, "fsync", full)
                with pytest.raises(ImageError, match="No space left on device"):
                    await runtime.images.pull(MINE, name, ())
                await runtime.images.look()
            await runtime.images.pull(MINE, name, ())
            assert await runtime.images.find(MINE, name, ()) != ""

        with_registry(tmp_path, registry, story)

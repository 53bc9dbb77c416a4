from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from walras.core.clock import VirtualClock
from walras.core.errors import BadRequest
from walras.runtimes.logs import LINE_BYTES_MAX, LogStore, LogWriter, Query, older


class World:
    def __init__(self, root: Path) -> None:
        self.clock = VirtualClock(1_700_000_000_000)
        self.store = LogStore(root, self.clock)
        self.path = self.store.path("acme", "u1", "main", 0)
        self.writer = self.store.create("acme", "u1", "main", 0)

    async def read(self, **query: Any) -> bytes:
        return b"".join([piece async for piece in self.store.read(self.path, Query(**query))])


def told(tmp_path: Path, story: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        world = World(tmp_path)
        await story(world)
        world.store.close(world.path)

    asyncio.run(run())


def test_lines_are_kept_in_the_format_of_the_container_runtime_interface(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.writer.write("stdout", b"one\ntw")
        world.writer.write("stderr", b"oops\n")
        world.writer.write("stdout", b"o\n")
        assert world.path.read_bytes() == (
            b"2023-11-14T22:13:20.000000000Z stdout F one\n"
            b"2023-11-14T22:13:20.000000000Z stderr F oops\n"
            b"2023-11-14T22:13:20.000000000Z stdout F two\n"
        )
        assert await world.read() == b"one\noops\ntwo\n"

    told(tmp_path, story)


def test_a_line_longer_than_the_limit_comes_back_whole(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        line = b"x" * (3 * LINE_BYTES_MAX + 5)
        world.writer.write("stdout", line[:LINE_BYTES_MAX])
        world.writer.write("stdout", line[LINE_BYTES_MAX:] + b"\nend\n")
        assert await world.read() == line + b"\nend\n"
        assert await world.read(tail_lines=1) == b"end\n"

    told(tmp_path, story)


def test_a_last_line_without_a_newline_is_kept_as_it_is(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.writer.write("stdout", b"prompt> ")
        assert await world.read() == b""
        world.store.close(world.path)
        assert await world.read() == b"prompt> "

    told(tmp_path, story)


@pytest.mark.parametrize(
    ("query", "meaning"),
    [
        ({"tail_lines": 2}, b"3\n4\n"),
        ({"tail_lines": 0}, b""),
        ({"tail_lines": 9}, b"0\n1\n2\n3\n4\n"),
        ({"limit_bytes": 3}, b"0\n1"),
        ({"since_ms": 1_700_000_003_000}, b"3\n4\n"),
        ({"tail_lines": 3, "since_ms": 1_700_000_004_000}, b"4\n"),
        ({"tail_lines": 1, "timestamps": True}, b"2023-11-14T22:13:24.000000000Z 4\n"),
    ],
)
def test_what_is_read_can_be_narrowed(tmp_path: Path, query: dict[str, Any], meaning: bytes) -> None:
    async def story(world: World) -> None:
        for number in range(5):
            world.writer.write("stdout", f"{number}\n".encode())
            world.clock.advance(1000)
        assert await world.read(**query) == meaning

    told(tmp_path, story)


def test_following_ends_with_the_container(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.writer.write("stdout", b"before\n")
        pieces = world.store.read(world.path, Query(follow=True))
        assert await anext(pieces) == b"before\n"
        waiting = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        assert not waiting.done()
        world.writer.write("stdout", b"after\n")
        assert await waiting == b"after\n"
        last = asyncio.ensure_future(anext(pieces, None))
        await asyncio.sleep(0)
        world.store.close(world.path)
        assert await last is None

    told(tmp_path, story)


def test_many_who_follow_one_log_all_hear_the_whole_of_it(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        followers = [asyncio.ensure_future(world.read(follow=True)) for _ in range(3)]
        for number in range(5):
            await asyncio.sleep(0)
            world.writer.write("stdout", b"%d\n" % number)
        await asyncio.sleep(0)
        world.store.close(world.path)
        async with asyncio.timeout(10):
            assert await asyncio.gather(*followers) == [b"0\n1\n2\n3\n4\n"] * 3

    told(tmp_path, story)


def test_a_log_that_grows_is_rotated_and_read_across(tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "acme" / "logs" / "u1" / "main" / "0.log"
        store, writer = LogStore(tmp_path, VirtualClock()), LogWriter(path, VirtualClock(), bytes_max=1000)
        follower = store.read(path, Query())
        for number in range(30):
            writer.write("stdout", f"{number:02d}\n".encode())
        text = b"".join([piece async for piece in follower])
        assert older(path).exists() and path.stat().st_size <= 1000
        assert text == b"".join(f"{number:02d}\n".encode() for number in range(30))
        for number in range(30, 200):
            writer.write("stdout", f"{number}\n".encode())
        assert path.stat().st_size + older(path).stat().st_size <= 2000
        writer.close()

    asyncio.run(run())


def test_only_the_last_two_attempts_are_kept(tmp_path: Path) -> None:
    async def run() -> None:
        store = LogStore(tmp_path, VirtualClock())
        for attempt in range(4):
            store.create("acme", "u1", "main", attempt)
            store.close(store.path("acme", "u1", "main", attempt))
        assert sorted(each.name for each in (tmp_path / "acme/logs/u1/main").iterdir()) == ["2.log", "3.log"]

    asyncio.run(run())


def test_a_log_that_is_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    async def run() -> None:
        store = LogStore(tmp_path, VirtualClock())
        path = store.path("acme", "u1", "main", 0)
        path.parent.mkdir(parents=True)
        path.symlink_to("/etc/hostname")
        with pytest.raises(OSError, match="symbolic"):
            store.create("acme", "u1", "main", 0)
        with pytest.raises(OSError, match="symbolic"):
            [piece async for piece in store.read(path, Query())]

    asyncio.run(run())


@pytest.mark.parametrize("name", ["..", "../../x", ""])
def test_names_cannot_lead_out_of_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest):
        LogStore(tmp_path, VirtualClock()).path("acme", "u1", name, 0)


def test_a_tail_is_no_longer_than_asked_though_more_is_said_while_it_is_read(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.writer.write("stdout", b"one\ntwo\n")
        reading = asyncio.create_task(world.read(tail_lines=1))
        while not reading.done():
            world.writer.write("stdout", b"more\n")
            await asyncio.sleep(0)
        assert reading.result().count(b"\n") == 1
        assert await world.read(tail_lines=2) == b"more\nmore\n"

    told(tmp_path, story)


def test_a_line_without_an_end_is_one_of_the_tail(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.writer.write("stdout", b"one\ntwo")
        world.store.close(world.path)
        assert await world.read(tail_lines=1) == b"two"
        assert await world.read(tail_lines=2) == await world.read(tail_lines=9) == b"one\ntwo"

    told(tmp_path, story)

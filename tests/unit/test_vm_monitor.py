"""QEMU's monitor, with somebody at the other end who may say anything."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from walras.core.errors import ServiceUnavailable
from walras.runtimes.vm import monitor
from walras.runtimes.vm.monitor import Monitor

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'
EVENT = b'{"event": "RTC_CHANGE", "data": {"offset": 1}}\n'
Answer = Callable[[str], bytes]


def with_monitor(tmp_path: Path, answer: Answer, story: Callable[[Monitor], Awaitable[None]]) -> list[str]:
    """What QEMU was told, in order."""
    told: list[str] = []

    async def qemu(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(GREETING + EVENT * 3)
        while line := await reader.readline():
            asked = json.loads(line)
            told.append(asked["execute"])
            said = answer(asked["execute"])
            writer.write(EVENT + said.replace(b"ID", str(asked["id"]).encode()))
        writer.close()

    async def run() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
            path = str(tmp_path / "m")
            listener.bind(path)
            listener.listen(1)
            other = asyncio.ensure_future(qemu(path))
            held = Monitor(listener)
            try:
                await story(held)
            finally:
                held.close()
                await asyncio.gather(other, return_exceptions=True)

    asyncio.run(run())
    return told


def test_a_machine_is_held_and_let_go_on_whatever_else_is_told_meanwhile(tmp_path: Path) -> None:
    async def story(held: Monitor) -> None:
        await held.pause(True)
        await asyncio.gather(held.pause(False), held.pause(True))

    told = with_monitor(tmp_path, lambda _: b'{"return": {}, "id": 0}\n{"return": {}, "id": ID}\n', story)
    assert told == ["qmp_capabilities", "stop", "cont", "stop"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b'{"error": {"class": "GenericError", "desc": "no"}, "id": ID}\n', "GenericError"),
        (b'{"return": {}, "id": 0}\n', "no answer"),
        (b"nonsense\n", "does not obey"),
        (b"[1]\n", "no QMP"),
        (b"x" * 200_000, "does not obey"),
        (b"[" * 60_000 + b"\n", "does not obey"),
        (b"", "no answer"),
    ],
)
def test_what_is_no_answer_is_an_error_and_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes, why: str
) -> None:
    monkeypatch.setattr(monitor, "_ANSWER_S", 0.2)

    async def story(held: Monitor) -> None:
        with pytest.raises(ServiceUnavailable, match=why):
            await held.pause(True)

    with_monitor(tmp_path, lambda _: said, story)

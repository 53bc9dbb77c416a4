"""Devices of machines in their agent's network, by whoever holds the other end: guests may say anything."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import subprocess
from collections.abc import Awaitable, Callable

import pytest

from walras.runtimes.base import PodRef
from walras.runtimes.network.networks import Networks

pytestmark = pytest.mark.skipif(shutil.which("nsenter") is None, reason="nsenter is not installed")
POD = PodRef("acme", "base", "u1", "box")


def with_tap(story: Callable[[Networks, int], Awaitable[None]]) -> None:
    async def run() -> None:
        networks = Networks()
        await networks.open()
        try:
            if networks.no_taps:
                pytest.skip(networks.no_taps)
            await networks.join(POD, machine=True)
            tap = await networks.tap(POD)
            try:
                await story(networks, tap)
            finally:
                os.close(tap)
        finally:
            await networks.close()

    asyncio.run(run())


async def inside(networks: Networks, *command: str) -> str:
    """What a program says in the agent's namespace."""
    namespace = networks._agents[POD.cluster].namespace
    argv = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{namespace}", *command]
    said = await asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True, text=True)
    return said.stdout


def advertisement(number: int) -> bytes:
    """ICMPv6 of a router that gives out a prefix (RFC 4861, section 4.2), with the device's own head."""
    prefix = bytes((0x20, 0x01, 0x0D, 0xB8)) + struct.pack(">I", number) + bytes(8)
    option = struct.pack(">BBBBIII", 3, 4, 64, 0xC0, 0xFFFFFFFF, 0xFFFFFFFF, 0) + prefix
    body = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 9000, 0, 0) + option
    ends = bytes.fromhex("fe800000000000000000000000000001ff020000000000000000000000000001")
    text = ends + struct.pack(">II", len(body), 58) + body
    total = sum(struct.unpack(f">{len(text) // 2}H", text))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack(">H", ~total & 0xFFFF) + body[4:]
    ether = bytes.fromhex("333300000001") + bytes.fromhex("020100000001") + b"\x86\xdd"
    return bytes(10) + ether + struct.pack(">IHBB", 6 << 28, len(body), 58, 255) + ends + body


def test_what_a_guest_says_of_routes_and_prefixes_is_believed_by_nobody() -> None:
    async def story(networks: Networks, tap: int) -> None:
        before = await inside(networks, "cat", "/proc/net/ipv6_route")
        for number in range(50):
            os.write(tap, advertisement(number))
        await asyncio.sleep(0.3)
        assert await inside(networks, "cat", "/proc/net/ipv6_route") == before

    with_tap(story)


def test_a_device_goes_with_its_descriptor_and_there_is_one_at_a_time() -> None:
    async def story(networks: Networks, tap: int) -> None:
        assert "pod2:" in await inside(networks, "cat", "/proc/net/dev")
        with pytest.raises(OSError, match="busy"):
            await networks.tap(POD)
        kept = os.dup(tap)
        os.close(tap)
        assert "pod2:" in await inside(networks, "cat", "/proc/net/dev")
        os.close(kept)
        assert "pod2:" not in await inside(networks, "cat", "/proc/net/dev")
        assert await networks.tap(POD) == tap

    with_tap(story)


def test_a_pod_that_has_a_namespace_has_no_device_of_a_machines() -> None:
    async def run() -> None:
        networks = Networks()
        await networks.open()
        if not networks.available:
            pytest.skip(networks.missing)
        await networks.join(POD)
        assert await networks.tap(POD) == -1
        assert await networks.tap(PodRef("acme", "base", "u2", "none")) == -1
        await networks.close()

    asyncio.run(run())

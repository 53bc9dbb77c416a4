"""Machines in their agent's network: whom their guests reach, by whom they are reached, and nobody else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
from support.hostile import listening
from support.networked import ACME, PYTHON, RIVAL, Object, World, networked
from support.runtimes import processes_with, vm

pytestmark = pytest.mark.skipif(bool(vm().missing), reason=vm().missing)
_IP: Final = {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
IN_GUEST: Final[Object] = {"runtimeClassName": "vm", "container": {"env": [_IP]}}
# Puts its own address and those of the argument into the heads of packets to the second, port 7000.
FORGE: Final = r"""
import os, socket, struct, sys, time
to, port, own = sys.argv[1], 7000, os.environ["IP"]
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", (to, 9))
time.sleep(1)
gateway = [line.split()[3] for line in open("/proc/net/arp") if line.startswith("169.254.1.1 ")][0]
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(("eth0", 0))
mine, theirs = link.getsockname()[4], bytes.fromhex(gateway.replace(":", ""))

def total(data):
    found = sum(struct.unpack(f">{len(data) // 2}H", data))
    while found >> 16:
        found = (found & 0xFFFF) + (found >> 16)
    return ~found & 0xFFFF

def packet(source, words):
    udp = struct.pack(">HHHH", 5000, port, 8 + len(words), 0) + words
    ends = socket.inet_aton(source), socket.inet_aton(to)
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, *ends)
    return theirs + mine + b"\x08\x00" + head[:10] + struct.pack(">H", total(head)) + head[12:] + udp

def claim(address):
    # An answer of ARP that nobody asked for.
    head = struct.pack(">HHHBBH", 0x0806, 1, 0x0800, 6, 4, 2)
    ends = mine + socket.inet_aton(address) + theirs + socket.inet_aton("169.254.1.1")
    return b"\xff" * 6 + mine + head + ends

for _ in range(100):
    for each in sys.argv[2:]:
        link.send(packet(each, b"forged"))
        link.send(claim(each))
    link.send(packet(own, b"honest"))
    time.sleep(0.1)
"""
# Says what comes until something honest does, and a moment longer.
LISTEN: Final = """
import socket, time
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 7000))
heard = []
while not heard or heard.count("honest") < 5:
    heard.append(server.recvfrom(100)[0].decode())
print(*sorted(set(heard)))
"""
# What comes by the device that is neither of nor for the guest's own address, for as long as asked.
SNIFF: Final = r"""
import os, socket, sys, time
own = os.environ["IP"]
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x0800))
link.settimeout(0.5)
until, seen = time.monotonic() + float(sys.argv[1]), 0
while time.monotonic() < until:
    try:
        frame = link.recv(2000)
    except TimeoutError:
        continue
    seen += socket.inet_aton(own) not in (frame[26:30], frame[30:34])
print("strangers:", seen)
"""


def devices_of(pid: int) -> list[str]:
    """Of the network that the process is in."""
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    return [line.split(":")[0].strip() for line in lines]


def machines(tmp_path: Path, story: Callable[[World], Awaitable[None]]) -> None:
    async def told(world: World) -> None:
        if world.networks.no_taps:
            pytest.skip(world.networks.no_taps)
        await story(world)

    networked(tmp_path, told, more=(vm(),), deadline_s=120.0)


def test_a_guest_is_reached_at_its_address_and_by_a_service_and_reaches_others(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.serving(RIVAL, "first")
        rival, beside = await world.serving(RIVAL, "rival"), await world.serving(ACME, "beside")
        guest = await world.serving(ACME, "guest", **IN_GUEST)
        assert (beside, guest) == ("10.244.0.2", "10.244.0.3")
        await world.service(ACME, "web", "10.0.7.7", guest)
        await world.service(ACME, "other", "10.0.7.8", beside)
        said = await world.asks(ACME, f"{guest}:80", "10.0.7.7:8080", "web:8080")
        assert [line.split(" = ")[1] for line in said] == ["guest to 10.244.0.4"] * 3
        with listening() as (address, port):
            places = [f"{host}:{port}" for host in (address, "169.254.1.1", "10.244.0.1", "10.0.0.1")]
            known = (f"{beside}:80", "other:8080", "other.default.svc.cluster.local:8080")
            found = await world.asks(ACME, *known, f"{rival}:80", *places, **IN_GUEST)
        assert [line.split(" = ")[1] for line in found[:3]] == ["beside to 10.244.0.5"] * 3
        assert all(" ! " in line for line in found[4:]), found
        assert "rival" not in found[3]

    machines(tmp_path, story)


def test_a_guest_that_forges_addresses_is_heard_under_its_own_alone(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        beside = await world.serving(ACME, "beside")
        await world.pod(ACME, "listener", PYTHON, "-c", LISTEN)
        await world.until(lambda: world.status(ACME, "listener").get("podIP"))
        to = str(world.status(ACME, "listener")["podIP"])
        forged = (beside, "169.254.1.1", "10.244.0.1", "127.0.0.1", "10.0.0.1", "192.0.2.1", "10.244.9.9")
        await world.pod(ACME, "forger", PYTHON, "-c", FORGE, to, *forged, **IN_GUEST)
        await world.until(lambda: world.status(ACME, "listener").get("phase") == "Succeeded")
        assert (await world.log(ACME, "listener")).split() == ["honest"]
        # Whoever asks for the address of another still finds that one.
        (said,) = await world.asks(ACME, f"{beside}:80")
        assert "= beside to " in said

    machines(tmp_path, story)


def test_a_guest_hears_nothing_that_is_not_for_it_and_qemu_itself_is_in_no_network(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        beside = await world.serving(ACME, "beside")
        await world.pod(ACME, "sniffer", PYTHON, "-c", SNIFF, "10", **IN_GUEST)
        await world.until(lambda: world.status(ACME, "sniffer").get("phase") == "Running")
        assert devices_of(processes_with("mac=02:01:0a:f4:")[-1]) == ["lo"]
        while world.status(ACME, "sniffer").get("phase") == "Running":
            (said,) = await world.asks(ACME, f"{beside}:80")
            assert "= beside to " in said
        await world.until(lambda: world.status(ACME, "sniffer").get("phase") == "Succeeded")
        assert "strangers: 0" in await world.log(ACME, "sniffer")

    machines(tmp_path, story)

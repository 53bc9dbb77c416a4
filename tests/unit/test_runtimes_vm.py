"""The vm runtime without a guest: what goes over the wire, what a machine is made of, its first data."""

from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import os
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walras.runtimes.base import ContainerSpec, ExitStatus, Limits, Mount, PodRef, StartError, Stream, Wish
from walras.runtimes.vm import initramfs, parts, runtime
from walras.runtimes.vm.channel import UNREAD_BYTES_MAX, Channel
from walras.runtimes.vm.container import ENTERED_MAX, start
from walras.runtimes.vm.disks import disks_of, is_disk
from walras.runtimes.vm.guest import cloud_init, wire
from walras.runtimes.vm.guest.streams import Loop, Relay
from walras.runtimes.vm.machine import Machine, Plan, place_of
from walras.runtimes.vm.monitor import Monitor
from walras.runtimes.vm.qemu import MIB, QEMU_OWN_BYTES, Disk, Nic, command, sandbox_mounts, shape_of

PARTS = parts.Parts(
    "/usr/bin/qemu", "/usr/lib/qemu/virtiofsd", "/bin/busybox", parts.Kernel(Path("/k"), Path("/m"))
)
POD = PodRef("acme", "base", "u1", "p1")
FRAMES = st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300))

# The wire


@given(st.lists(FRAMES, max_size=8), st.integers(1, 40))
def test_frames_arrive_whole_in_whatever_pieces(sent: list[tuple[int, int, bytes]], size: int) -> None:
    text = b"".join(wire.frame(*each) for each in sent)
    frames, heard = wire.Frames(), []
    for at in range(0, len(text), size):
        heard += frames.feed(text[at : at + size])
    assert heard == sent


def test_a_frame_that_is_too_large_is_refused_before_it_is_there() -> None:
    with pytest.raises(ValueError, match="2000000 bytes"):
        wire.Frames().feed(wire.HEADER.pack(2_000_000, wire.DATA, 1))


# The server's end


class Guest:
    """Says on the port whatever it likes."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._frames = end, wire.Frames()
        self._heard: list[tuple[int, int, bytes]] = []

    async def say(self, kind: int, stream: int, payload: bytes = b"") -> None:
        await asyncio.get_running_loop().sock_sendall(self._end, wire.frame(kind, stream, payload))

    async def hears(self) -> tuple[int, int, bytes]:
        while not self._heard:
            data = await asyncio.get_running_loop().sock_recv(self._end, 1 << 16)
            assert data, "the server hung up"
            self._heard += self._frames.feed(data)
        return self._heard.pop(0)


def with_guest(story: Callable[[Channel, Guest], Awaitable[None]]) -> str:
    """Why the channel ended."""

    async def run() -> str:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        channel = Channel(*await asyncio.open_connection(sock=ours))
        reading = asyncio.ensure_future(channel.run())
        with theirs:
            await story(channel, Guest(theirs))
        async with asyncio.timeout(5):
            why = await reading
        channel.close(ExitStatus(137))
        return why

    return asyncio.run(run())


def plan() -> Plan:
    return Plan(PARTS, Path("/i"), "tcg", shape_of(Limits()))


def ignore(_stream: Stream, _data: bytes) -> None:
    pass


def test_a_program_that_starts_speaks_and_ends_is_told_so() -> None:
    said: list[tuple[Stream, bytes]] = []

    async def story(channel: Channel, guest: Guest) -> None:
        opening = asyncio.ensure_future(
            channel.open(wire.START, {"argv": ["x"]}, lambda *each: said.append(each), lambda _: None)
        )
        kind, number, _ = await guest.hears()
        assert kind == wire.START
        await guest.say(wire.STARTED, number)
        remote = await opening
        await guest.say(wire.DATA, number, b"\x02oops")
        await guest.say(wire.EXIT, number, wire.EXIT_PAYLOAD.pack(9, 1))
        assert await remote.ended == ExitStatus(9, oom_killed=True)

    assert with_guest(story) == ""
    assert said == [("stderr", b"oops")]


def test_a_program_that_cannot_start_is_an_error_in_the_guests_words() -> None:
    async def story(channel: Channel, guest: Guest) -> None:
        opening = asyncio.ensure_future(channel.open(wire.START, {}, ignore, lambda _: None))
        _, number, _ = await guest.hears()
        await guest.say(wire.FAILED, number, b"no such file")
        with pytest.raises(StartError, match="no such file"):
            await opening

    assert with_guest(story) == ""


def test_what_was_started_has_ended_when_the_guest_is_gone() -> None:
    async def story(channel: Channel, guest: Guest) -> None:
        opening = asyncio.ensure_future(channel.open(wire.START, {}, ignore, lambda _: None))
        _, number, _ = await guest.hears()
        await guest.say(wire.STARTED, number)
        remote = await opening
        channel.close(ExitStatus(137, oom_killed=True))
        assert await remote.ended == ExitStatus(137, oom_killed=True)

    with_guest(story)


def test_no_more_input_is_sent_than_the_guest_has_room_for() -> None:
    async def story(channel: Channel, guest: Guest) -> None:
        opening = asyncio.ensure_future(channel.open(wire.START, {}, ignore, lambda _: None))
        _, number, _ = await guest.hears()
        await guest.say(wire.STARTED, number)
        remote = await opening
        writing = asyncio.ensure_future(remote.write(bytes(wire.WINDOW + 1)))
        taken = 0
        while taken < wire.WINDOW:
            taken += len((await guest.hears())[2]) - 1
        await asyncio.sleep(0)
        assert taken == wire.WINDOW and not writing.done()
        await guest.say(wire.TAKEN, number, wire.TAKEN_PAYLOAD.pack(wire.STDIN, 1))
        await writing

    with_guest(story)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ([(wire.DATA, 1, b"\x01" + bytes(wire.WINDOW // 2 + 1))] * 2, "more than its window"),
        ([(wire.DATA, 1, b"\x07x")], "7"),
        ([(wire.DATA, 1, b"")], "range"),
        ([(wire.DATA, 1, b"\x01")], "no bytes"),
        ([(wire.EXIT, 1, b"")], "buffer"),
        ([(wire.START, 1, b"")], "kind 1"),
    ],
)
def test_a_guest_that_breaks_the_rules_is_heard_no_more(says: list[tuple[int, int, bytes]], why: str) -> None:
    async def story(channel: Channel, guest: Guest) -> None:
        opening = asyncio.ensure_future(channel.open(wire.START, {}, ignore, lambda _: None))
        _, number, _ = await guest.hears()
        assert number == 1
        await guest.say(wire.STARTED, number)
        await opening
        for each in says:
            await guest.say(*each)

    ended = with_guest(story)
    assert ended.startswith("the guest breaks the protocol") and why in ended


def test_what_is_said_of_streams_that_are_closed_is_nobodys_business() -> None:
    async def story(channel: Channel, guest: Guest) -> None:
        for _ in range(2000):
            await guest.say(wire.DATA, 99, b"\x01x")
        opening = asyncio.ensure_future(channel.open(wire.START, {}, ignore, lambda _: None))
        _, number, _ = await guest.hears()
        await guest.say(wire.STARTED, number)
        await opening

    assert with_guest(story) == ""


def test_a_guest_that_does_not_read_is_given_up() -> None:
    async def story(channel: Channel, _guest: Guest) -> None:
        for _ in range(UNREAD_BYTES_MAX // wire.CHUNK + 100):
            channel.send(wire.RESIZE, 1, bytes(wire.CHUNK))
        with pytest.raises(StartError, match="the machine ended"):
            await asyncio.wait_for(channel.open(wire.START, {}, ignore, lambda _: None), 5)

    assert with_guest(story) == ""


def test_programs_on_their_way_into_a_container_count_as_those_that_are_in_it() -> None:
    async def story(channel: Channel, guest: Guest) -> None:
        machine: Any = SimpleNamespace(channel=channel, plan=SimpleNamespace(volumes=()))
        starting = asyncio.ensure_future(start(machine, spec(), ignore, Limits()))
        _, number, _ = await guest.hears()
        await guest.say(wire.STARTED, number)
        container = await starting
        entering = [asyncio.ensure_future(container.enter(("true",), Wish())) for _ in range(ENTERED_MAX)]
        for _ in entering:
            _, number, _ = await guest.hears()
        with pytest.raises(StartError, match="have entered"):
            await asyncio.wait_for(container.enter(("true",), Wish()), 5)
        await guest.say(wire.FAILED, number, b"not found")
        with pytest.raises(StartError, match="not found"):
            await entering.pop()
        entering.append(asyncio.ensure_future(container.enter(("true",), Wish())))
        kind, again, _ = await guest.hears()
        while kind != wire.START:
            kind, again, _ = await guest.hears()
        assert again > number
        channel.close(ExitStatus(137))
        await asyncio.gather(container.wait(), *entering, return_exceptions=True)

    with_guest(story)


def test_a_program_that_comes_into_a_container_as_that_ends_is_closed() -> None:
    async def story(channel: Channel, guest: Guest) -> None:
        machine: Any = SimpleNamespace(channel=channel, plan=SimpleNamespace(volumes=()))
        starting = asyncio.ensure_future(start(machine, spec(), ignore, Limits()))
        _, main, _ = await guest.hears()
        await guest.say(wire.STARTED, main)
        container = await starting
        entering = asyncio.ensure_future(container.enter(("true",), Wish()))
        _, number, _ = await guest.hears()
        await guest.say(wire.EXIT, main, wire.EXIT_PAYLOAD.pack(0, 0))
        await container.wait()
        await guest.say(wire.STARTED, number)
        with pytest.raises(StartError, match="the container has ended"):
            await entering
        assert (await guest.hears())[:2] == (wire.CLOSE, number)

    with_guest(story)


def test_a_connection_into_a_guest_has_two_halves_and_ends_when_its_client_hangs_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_LEFT_S", 0.05)

    async def story(channel: Channel, guest: Guest) -> None:
        vms = runtime.VmRuntime(tmp_path, PARTS)
        pod: Any = SimpleNamespace(machine=SimpleNamespace(channel=channel, over=False))
        vms._pods[POD.key] = pod
        dialing = asyncio.ensure_future(vms.dial(POD, 80))
        _, number, _ = await guest.hears()
        await guest.say(wire.STARTED, number)
        reader, writer = await dialing
        writer.write(b"asked")
        writer.write_eof()
        assert await guest.hears() == (wire.DATA, number, b"\x00asked")
        assert (await guest.hears())[:2] == (wire.END, number)
        await guest.say(wire.DATA, number, b"\x01said")
        assert await reader.readexactly(4) == b"said"
        # The guest never ends its half.
        writer.close()
        kind, number, _ = await guest.hears()
        assert kind == wire.TAKEN
        async with asyncio.timeout(5):
            assert (await guest.hears())[:2] == (wire.CLOSE, number)
        await writer.wait_closed()

    with_guest(story)


def test_why_a_guest_was_ended_is_told_with_its_last_words(tmp_path: Path) -> None:
    class Program:
        def __init__(self) -> None:
            self.killed = asyncio.Event()

        async def wait(self) -> ExitStatus:
            await self.killed.wait()
            return ExitStatus(137)

        async def kill(self) -> None:
            self.killed.set()

    async def run() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            channel = Channel(*await asyncio.open_connection(sock=ours))
            program: Any = Program()
            monitor = Monitor(socket.socket(socket.AF_UNIX))
            machine = Machine(plan(), program, channel, monitor, tmp_path / "run", bytearray(b"panic\n"))
            theirs.send(wire.HEADER.pack(2_000_000, wire.DATA, 1))
            with pytest.raises(StartError, match=r"is ready: the guest breaks the protocol: .*: panic$"):
                await machine.ready(5)

    asyncio.run(run())


# The guest's end


def relayed() -> tuple[Loop, Relay, list[tuple[int, int, bytes]], int, int]:
    """A relay between pipes: the loop, itself, what it sends, where to write, where to read."""
    sent: list[tuple[int, int, bytes]] = []
    output, write = os.pipe()
    read, given = os.pipe()
    for fd in (output, given):
        os.set_blocking(fd, False)
    loop = Loop()
    relay = Relay(loop, lambda *each: sent.append(each), 5, {wire.STDOUT: output}, given)
    return loop, relay, sent, write, read


def test_a_relay_sends_no_more_than_its_window_until_some_is_taken() -> None:
    loop, relay, sent, write, read = relayed()
    os.set_blocking(write, False)
    total = 0
    for _ in range(40):
        with suppress(BlockingIOError):
            os.write(write, bytes(wire.CHUNK))
        loop.once(0)
        total = sum(len(payload) - 1 for kind, _, payload in sent if kind == wire.DATA)
    assert total == wire.WINDOW
    relay.taken(wire.STDOUT, 10)
    loop.once(0)
    assert sum(len(payload) - 1 for _, _, payload in sent) == wire.WINDOW + 10
    for fd in (write, read):
        os.close(fd)
    relay.close()


def test_input_arrives_is_told_as_taken_and_ends() -> None:
    _, relay, sent, write, read = relayed()
    relay.give(b"words")
    relay.end()
    assert os.read(read, 100) == b"words" and os.read(read, 100) == b""
    assert sent == [(wire.TAKEN, 5, wire.TAKEN_PAYLOAD.pack(wire.STDIN, 5))]
    os.close(write)
    os.close(read)
    relay.close()


def test_the_input_of_a_connection_that_was_reset_ends_without_a_word() -> None:
    _, relay, _, write, read = relayed()

    def reset() -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    relay.end_of_input = reset
    relay.end()
    relay.give(b"more")
    assert os.read(read, 100) == b"more"
    for fd in (write, read):
        os.close(fd)
    relay.close()


# What a machine is made of


def test_a_machine_has_what_its_containers_may_use_and_room_for_itself() -> None:
    shape = shape_of(Limits(cpu_milli=100, memory_bytes=100 * MIB))
    assert shape.memory_bytes > 100 * MIB and shape.memory_bytes % MIB == 0 and shape.cpus == 1
    assert shape.limit_bytes == shape.memory_bytes + QEMU_OWN_BYTES
    assert shape_of(Limits()).memory_bytes > shape.memory_bytes


def test_qemu_is_shut_in_by_its_own_filter_and_has_the_disks_that_are_wanted() -> None:
    shell, _, script = command(PARTS, "tcg", shape_of(Limits()), (Disk("data", "/v", 1 << 20),))
    assert shell == "/bin/sh"
    assert "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny" in script
    assert "truncate -s 1048576 /machine/disks/data/disk.img" in script
    assert "-accel tcg" in script and "-accel kvm" in " ".join(command(PARTS, "kvm", shape_of(Limits())))


def test_a_machine_in_a_network_has_one_device_whose_packets_are_its_own() -> None:
    script = command(PARTS, "tcg", shape_of(Limits()), (), Nic(41, "02:01:0a:f4:00:07", "10.244.0.7"))[2]
    assert (
        "-netdev tap,id=net,fd=6 -device virtio-net-pci,netdev=net,mac=02:01:0a:f4:00:07,romfile=" in script
    )
    assert "WALRAS_ADDRESS=10.244.0.7 WALRAS_ROUTER=169.254.1.1" in script
    assert "netdev" not in command(PARTS, "tcg", shape_of(Limits()))[2]


def test_the_share_has_the_system_and_the_volumes_as_read_only_as_they_are() -> None:
    volumes = (Mount("/data/a", "a"), Mount("/data/b", "b", read_only=True))
    mounts = {each.target: each for each in sandbox_mounts(PARTS, Path("/i"), Path("/run/x"), volumes)}
    assert mounts["/share/root/usr"].read_only
    assert not mounts["/share/volumes/0"].read_only and mounts["/share/volumes/1"].read_only


def test_a_mount_is_found_in_its_volume_and_in_no_other() -> None:
    volumes = (Mount("/data/a", "a"), Mount("/data/ab", "ab"))
    assert place_of(Mount("/data/ab/sub", "/x"), volumes) == "volumes/1/sub"
    assert place_of(Mount("/data/a", "/x"), volumes) == "volumes/0"
    assert place_of(Mount("/data/abc", "/x"), volumes) is None


def spec(*mounts: Mount, sizes: str = "{}") -> ContainerSpec:
    return ContainerSpec(POD, "main", 0, ("true",), {"WALRAS_DISKS": sizes}, mounts=mounts)


def test_disks_are_what_is_mounted_where_disks_are_in_the_order_of_their_names() -> None:
    place = "/var/run/kubevirt-private/vmi-disks"
    two, one, other = Mount("/v/2", f"{place}/two"), Mount("/v/1", f"{place}/one"), Mount("/v/3", "/srv")
    found = disks_of(spec(two, other, one, sizes='{"two": 2, "one": 1}'))
    assert found == (Disk("one", "/v/1", 1), Disk("two", "/v/2", 2))
    assert not is_disk(other)


@pytest.mark.parametrize(
    "sizes", ["{}", "[]", '{"x": -1}', '{"x": "1"}', '{"x": true}', "nonsense", "[" * 60_000]
)
def test_a_disk_without_a_size_is_none(sizes: str) -> None:
    with pytest.raises(StartError, match="WALRAS_DISKS"):
        disks_of(spec(Mount("/v", "/var/run/kubevirt-private/vmi-disks/x"), sizes=sizes))


def test_pods_that_start_at_once_have_the_archive_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def cached(_: parts.Parts, directory: Path) -> Path:
        made.append(directory)
        return directory

    async def boot(*_: object) -> None:
        raise StartError("no machine here")

    async def run() -> None:
        vms = runtime.VmRuntime(tmp_path, PARTS, accelerator="tcg")
        specs = [replace(spec(), pod=replace(POD, uid=uid)) for uid in ("u1", "u2")]
        starting = [vms.start(each, ignore, Limits()) for each in specs]
        for ended in await asyncio.gather(*starting, return_exceptions=True):
            assert isinstance(ended, StartError) and str(ended) == "no machine here"

    monkeypatch.setattr(initramfs, "cached", cached)
    monkeypatch.setattr(runtime, "boot", boot)
    asyncio.run(run())
    assert len(made) == 1


@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox reads the archive")
def test_the_archive_is_one_that_others_can_read(tmp_path: Path) -> None:
    archive = initramfs.Archive()
    archive.file("a/b/odd", b"five!", 0o100755)
    archive.file("a/b/empty", b"")
    archive.link("l", "a/b")
    subprocess.run(
        ["busybox", "cpio", "-i"], cwd=tmp_path, input=archive.finished(), check=True, capture_output=True
    )
    assert (tmp_path / "l/odd").read_bytes() == b"five!" and (tmp_path / "a/b/empty").read_bytes() == b""
    assert os.access(tmp_path / "a/b/odd", os.X_OK) and os.readlink(tmp_path / "l") == "a/b"


def test_kernels_for_clouds_come_first_and_newer_before_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64", "6.9.0-1-amd64", "6.0.0-modules-missing")
    (tmp_path / "boot").mkdir()
    for name in names:
        (tmp_path / f"boot/vmlinuz-{name}").touch()
        if "missing" not in name:
            (tmp_path / f"lib/modules/{name}/kernel/fs").mkdir(parents=True)
    monkeypatch.setenv(parts.KERNEL_VARIABLE, str(tmp_path))
    assert [each.version for each in parts.kernels()] == [names[1], names[0], names[2]]
    first = next(parts.kernels())
    (first.modules / "kernel/fs/fuse.ko").touch()
    (first.modules / "modules.builtin").write_text("kernel/drivers/virtio/virtio.ko\n")
    assert first.has("fuse") and first.has("virtio") and not first.has("vir")
    assert first.module("virtio") is None


# Cloud-init's data


def root(tmp_path: Path) -> str:
    for name in ("run", "etc", "proc/sys/kernel"):
        (tmp_path / name).mkdir(parents=True)
    return str(tmp_path)


def test_files_are_written_as_they_are_encoded_and_commands_run_in_order(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    packed = base64.b64encode(gzip.compress(b"packed", mtime=0)).decode()
    text = f"""#cloud-config
hostname: crate.example
packages: [nginx]
bootcmd: ["echo first"]
write_files:
- {{path: /srv/plain, content: "a\\n", permissions: "0600"}}
- {{path: /srv/plain, content: b, append: true}}
- {{path: /srv/packed, content: {packed}, encoding: gz+b64}}
- {{content: nowhere}}
runcmd:
- echo $((1 + 1))
- [sh, -c, "exit 3"]
- [no-such-program]
final_message: over
"""
    assert cloud_init.apply(text, root(tmp_path)) == 3
    assert (tmp_path / "srv/plain").read_text() == "a\nb" and (
        tmp_path / "srv/plain"
    ).stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "srv/packed").read_bytes() == b"packed"
    assert (tmp_path / "etc/hostname").read_text() == "crate\n"
    said = capfd.readouterr().out
    assert said.index("first") < said.index("2\n") < said.index("over")
    for words in ("packages is not applied", "'path'", "exit code 3", "no-such-program: No such file"):
        assert words in said


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("write_files: [words, 7]", "'words' is no mapping"),
        ("write_files: {path: /x}", "write_files is no list"),
        ("runcmd: date", "runcmd is no list"),
        ("bootcmd: 5", "bootcmd is no list"),
        ("write_files: [{path: /srv/x, encoding: gz+b64, content: AAAA}]", "write_files: "),
        ('runcmd: [["a\\0b"], "true"]', "embedded null byte"),
        ("when: 2001-99-99", "no YAML"),
        ("hostname: " + "x" * 5000, "hostname: "),
    ],
)
def test_a_guest_is_told_what_is_wrong_with_its_data_and_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], config: str, said: str
) -> None:
    at = root(tmp_path)
    (tmp_path / "proc/sys/kernel/hostname").unlink(missing_ok=True)
    (tmp_path / "proc/sys/kernel/hostname").mkdir()
    assert cloud_init.apply(f"#cloud-config\n{config}\nfinal_message: on", at) > 0
    assert said in capfd.readouterr().out


def test_a_script_runs_and_what_is_neither_is_left_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    at = root(tmp_path)
    assert cloud_init.apply("#!/bin/sh\necho by a script\n", at) == 0
    assert cloud_init.apply("", at) == 0
    assert [cloud_init.apply(text, at) for text in ("MIME", "#cloud-config\n- x", "#cloud-config\n{")] == [
        1,
        1,
        1,
    ]
    assert "by a script" in capfd.readouterr().out


def test_data_of_the_instance_goes_before_that_of_a_secret(tmp_path: Path) -> None:
    seeds = (str(tmp_path / "one"), str(tmp_path / "two"))
    assert cloud_init.user_data(seeds) == ""
    for seed, name in zip(seeds, ("user-data", "userdata"), strict=True):
        Path(seed).mkdir()
        (Path(seed) / name).write_text(name)
    assert cloud_init.user_data(seeds) == "user-data" and cloud_init.user_data(seeds[1:]) == "userdata"

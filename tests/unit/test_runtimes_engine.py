"""What is said to an engine, and how its answers are read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from walras.runtimes.base import ContainerSpec, Limits, Mount, PodRef, Security, Stream
from walras.runtimes.engine.body import body, user
from walras.runtimes.engine.sessions import spoken
from walras.runtimes.engine.streams import Queues, frames
from walras.runtimes.security import CAPABILITIES, capabilities, refused, security_of

POD = PodRef("acme", "base", "uid", "p")


def made(**more: Any) -> dict[str, Any]:
    spec = ContainerSpec(POD, "main", 0, **{"command": (), "image_id": "sha256:1", "working_dir": "", **more})
    return body(spec, mark="m", network="/net", parent="/walras-m/pod", devices=spec.devices)


def test_an_images_own_entrypoint_gets_the_arguments_of_a_container_without_command() -> None:
    plain = made(args=("x",))
    assert "Entrypoint" not in plain and plain["Cmd"] == ["x"]
    told = made(command=("run",), args=("x",))
    assert told["Entrypoint"] == ["run"] and told["Cmd"] == ["x"]


def test_nothing_of_the_machine_is_given_that_was_not_asked_for() -> None:
    host = made()["HostConfig"]
    assert host["NetworkMode"] == "ns:/net" and host["CgroupParent"] == "/walras-m/pod"
    assert host["CapDrop"] == ["ALL"] and set(host["CapAdd"]) == set(CAPABILITIES)
    assert host["Mounts"] == [] and host["Devices"] == []
    assert "Privileged" not in host and "PidMode" not in host


def test_mounts_devices_and_limits_are_passed_on() -> None:
    told = made(
        mounts=(Mount("/host/a:b", "/data", read_only=True),),
        devices=("/dev/nvidia0",),
        limits=Limits(memory_bytes=1 << 20, pids=7),
        security=Security(user=1000, group=2000, groups=(3000,), read_only_root=True, no_new_privileges=True),
    )
    host = told["HostConfig"]
    (mount,) = host["Mounts"]
    assert (mount["Source"], mount["Target"], mount["ReadOnly"]) == ("/host/a:b", "/data", True)
    assert host["Devices"][0]["PathInContainer"] == "/dev/nvidia0"
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (1 << 20, 1 << 20, 7)
    assert told["User"] == "1000:2000" and host["GroupAdd"] == ["3000"]
    assert host["ReadonlyRootfs"] is True and host["SecurityOpt"] == ["no-new-privileges"]


def test_capabilities_reach_no_further_than_a_containers_own_namespaces() -> None:
    asked = Security(added=("SYS_ADMIN", "NET_RAW"), dropped=("CHOWN",))
    assert "SYS_ADMIN" not in capabilities(asked) and "CHOWN" not in capabilities(asked)
    assert "NET_RAW" in capabilities(asked) and refused(asked) == ["SYS_ADMIN"]
    assert capabilities(Security(dropped=("ALL",), added=("KILL",))) == ["KILL"]
    assert "SYS_ADMIN" not in capabilities(Security(added=("ALL",)))


def test_a_group_without_a_user_is_roots_and_neither_is_the_images() -> None:
    assert user(Security(group=5)) == "0:5"
    assert user(Security()) == ""


def test_a_containers_words_on_security_go_before_its_pods() -> None:
    pod = {
        "spec": {
            "securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 9, "supplementalGroups": [8, 9]}
        }
    }
    container = {"securityContext": {"runAsUser": 0, "capabilities": {"add": ["CAP_KILL"], "drop": ["all"]}}}
    found = security_of(pod, container)
    assert (found.user, found.group, found.groups) == (0, 2, (8, 9))
    assert (found.added, found.dropped, found.non_root) == (("KILL",), ("ALL",), False)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            'runc: runc create failed: unable to start container process: exec: "x": executable file not '
            "found in $PATH: OCI runtime attempted to invoke a command that was not found",
            'exec: "x": executable file not found in $PATH',
        ),
        (
            "Error: runc: exec failed: unable to start container process: exec: no: OCI permission denied",
            "exec: no",
        ),
        ("no space left on device", "no space left on device"),
    ],
)
def test_the_words_of_the_program_that_failed_are_told_without_those_around_them(
    message: str, said: str
) -> None:
    assert spoken(message) == said


def frame(number: int, data: bytes) -> bytes:
    return bytes((number, 0, 0, 0)) + len(data).to_bytes(4) + data


def test_frames_come_apart_by_stream_and_one_that_is_cut_off_ends_them() -> None:
    async def run() -> list[tuple[Stream, bytes]]:
        reader = asyncio.StreamReader()
        reader.feed_data(
            frame(1, b"out") + frame(2, b"err") + frame(1, b"") + frame(0, b"?") + frame(1, b"xy")[:-1]
        )
        reader.feed_eof()
        said: list[tuple[Stream, bytes]] = []
        await frames(reader, False, lambda stream, data: said.append((stream, data)))
        return said

    assert asyncio.run(run()) == [("stdout", b"out"), ("stderr", b"err")]


def test_a_reader_that_is_slow_holds_up_its_stream_and_misses_nothing() -> None:
    async def run() -> bytes:
        reader = asyncio.StreamReader()
        for number in range(100):
            reader.feed_data(frame(1, b"%d," % number))
        reader.feed_eof()
        queues = Queues(("stdout",))
        over = asyncio.ensure_future(frames(reader, False, queues.put))
        await asyncio.sleep(0)
        assert not over.done()
        text = b""
        while data := await queues.get("stdout", over):
            text += data
        return text

    assert asyncio.run(run()) == b"".join(b"%d," % number for number in range(100))

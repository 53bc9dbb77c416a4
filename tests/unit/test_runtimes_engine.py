"""What is said to an engine, and how its answers are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from walras.core.errors import Invalid
from walras.runtimes.base import (
    ContainerSpec,
    CreateError,
    Limits,
    Mount,
    PodRef,
    Security,
    StartError,
    Stream,
    Wish,
)
from walras.runtimes.cgroups import Groups
from walras.runtimes.engine.body import body, user
from walras.runtimes.engine.client import Engine, EngineError
from walras.runtimes.engine.outside import Outside, is_podman, unfit
from walras.runtimes.engine.service import Source
from walras.runtimes.engine.sessions import enter, spoken
from walras.runtimes.engine.starting import begin
from walras.runtimes.engine.streams import Queues, frames
from walras.runtimes.security import CAPABILITIES, capabilities, refused, security_of

POD = PodRef("acme", "base", "uid", "p")


def made(**more: Any) -> dict[str, Any]:
    spec = ContainerSpec(POD, "main", 0, **{"command": (), "image_id": "sha256:1", "working_dir": "", **more})
    return body(spec, mark="m", network="ns:/net", parent="/walras-m/pod", devices=spec.devices)


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
        (
            'OCI runtime exec failed: exec failed: unable to start container process: exec: "x": executable '
            "file not found in $PATH: unknown",
            'exec: "x": executable file not found in $PATH',
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


async def answering(path: Path, answer: bytes) -> asyncio.Server:
    """An engine that says the same to everything."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(serve, str(path))


REFUSAL = b'{"cause":"x","message":"no such image","response":404}'
HEAD = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: %d\r\n\r\n" % len(REFUSAL) + REFUSAL,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(REFUSAL) + REFUSAL + b"\r\n0\r\n\r\n",
    ],
    ids=["whole", "in chunks"],
)
def test_a_refusal_is_told_in_the_engines_words_however_it_was_asked(tmp_path: Path, answer: bytes) -> None:
    async def run() -> None:
        async with await answering(tmp_path / "s", answer):
            engine = Engine(str(tmp_path / "s"))
            with pytest.raises(EngineError, match=r"^no such image$") as called:
                await engine.call("GET", "/images/x/json")
            with pytest.raises(EngineError, match=r"^no such image$") as hijacked:
                await engine.hijack("/containers/x/attach")
            assert called.value.status == hijacked.value.status == 404
            await engine.close()

    asyncio.run(run())


def test_a_container_whose_program_has_just_ended_is_looked_at_again(tmp_path: Path) -> None:
    def answer(status: int, body: bytes) -> bytes:
        head = b"HTTP/1.1 %d Any\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        return head % (status, len(body)) + body

    lost = answer(500, b'{"message": "read /proc/7884/cgroup: no such process"}')
    other = answer(500, b'{"message": "the database is locked"}')
    found = answer(200, b'{"State": {"Status": "exited"}}')

    async def looked(name: str, *answers: bytes) -> tuple[object, int]:
        left = list(answers)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()
            writer.close()

        engine = Engine(str(tmp_path / name))
        async with await asyncio.start_unix_server(serve, str(tmp_path / name)):
            try:
                return await engine.look("x"), len(left)
            except EngineError as error:
                return error.message, len(left)
            finally:
                await engine.close()

    async def run() -> None:
        assert await looked("again", lost, lost, found) == ({"State": {"Status": "exited"}}, 1)
        assert await looked("other", other, found) == ("the database is locked", 1)
        assert (await looked("always", lost))[0] == "read /proc/7884/cgroup: no such process"

    asyncio.run(run())


@dataclass
class Host:
    """As much of a runtime as a container's start takes. `socket`: its engine's."""

    socket: Path
    service: Source
    groups: Groups | None = None
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    engines: list[Engine] = field(default_factory=list)

    async def engine(self) -> Engine:
        self.engines.append(Engine(str(self.socket)))
        return self.engines[-1]


def answered(status: int, body: Any) -> bytes:
    content = msgspec.json.encode(body)
    return (
        b"HTTP/1.1 %d Any\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        % (
            status,
            len(content),
        )
        + content
    )


UPGRADED = b"HTTP/1.1 101 UPGRADED\r\n\r\n"


@asynccontextmanager
async def scripted(path: Path, answers: Mapping[str, list[bytes]]) -> AsyncIterator[list[str]]:
    """An engine that answers each request in its turn, the last time for ever: what it was asked."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request = " ".join(head.split(" ", 2)[:2]).replace("/v1.41", "").partition("?")[0]
        asked.append(request)
        left = answers[request]
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        writer.close()

    async with await asyncio.start_unix_server(serve, str(path)):
        yield asked


@pytest.mark.parametrize("state", ["created", "initialized", "running", "exited"])
def test_a_container_whose_engine_dies_at_its_start_is_made_anew_unless_its_program_was_begun(
    tmp_path: Path, state: str
) -> None:
    async def run() -> None:
        answers = {
            "POST /containers/create": [answered(201, {"Id": "x"})],
            "POST /containers/x/attach": [UPGRADED, answered(409, {"message": "not running"})],
            "POST /containers/x/start": [b""],
            "GET /containers/x/json": [b"", answered(200, {"State": {"Status": state, "Pid": 7}})],
            "DELETE /containers/x": [answered(204, None)],
        }
        host = Host(tmp_path / "s", Outside(tmp_path / "s", tmp_path, tmp_path))
        async with scripted(tmp_path / "s", answers) as asked:
            if state in ("created", "initialized"):
                with pytest.raises(CreateError, match="does not answer") as error:
                    await begin(host, {}, (), stdin=False)
                assert error.value.again and asked[-1] == "DELETE /containers/x"
            else:
                engine_id, started = await begin(host, {}, (), stdin=False)
                assert (engine_id, started.pid) == ("x", 7)
                # Nobody can hear it any more.
                assert await started.streams[0].read() == b""
                started.streams[1].close()
        for engine in host.engines:
            await engine.close()

    asyncio.run(run())


def test_what_an_engine_made_before_it_could_say_so_is_taken_away(tmp_path: Path) -> None:
    async def run() -> None:
        answers = {
            "POST /containers/create": [b""],
            "GET /containers/json": [b"", answered(200, [{"Id": "x"}])],
            "DELETE /containers/x": [answered(204, None)],
        }
        host = Host(tmp_path / "s", Outside(tmp_path / "s", tmp_path, tmp_path))
        async with scripted(tmp_path / "s", answers) as asked:
            with pytest.raises(CreateError, match="does not answer"):
                await begin(host, {}, ("pod", "main-0"), stdin=False)
            assert asked[-1] == "DELETE /containers/x"
        for engine in host.engines:
            await engine.close()

    asyncio.run(run())


def test_a_program_whose_code_went_with_its_container_was_killed(tmp_path: Path) -> None:
    async def run() -> None:
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answers = {
            "POST /containers/x/exec": [answered(201, {"Id": "e"})],
            "POST /exec/e/start": [UPGRADED + frame(1, b"last words")],
            "GET /exec/e/json": [
                answered(200, {"Running": True, "Pid": 1}),
                answered(404, {"message": "no such exec session"}),
            ],
        }
        async with scripted(tmp_path / "s", answers):
            engine = Engine(str(tmp_path / "s"))
            session = await enter(engine, "x", ("sh",), Wish(), lambda _: None, gone)
            gone.set_result(None)
            assert await session.wait() == 137
            assert await session.read("stdout") == b"last words"
            await session.close()
            await engine.close()

    asyncio.run(run())


def test_what_podman_says_of_a_program_that_it_could_not_start_is_not_the_programs(tmp_path: Path) -> None:
    async def run() -> None:
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        said = b"Error: container create failed (no logs from conmon): EOF\n"
        answers = {
            "POST /containers/x/exec": [answered(201, {"Id": "e"})],
            "POST /exec/e/start": [UPGRADED + frame(2, said)],
            "GET /exec/e/json": [answered(200, {"Running": False, "ExitCode": 125})],
        }
        async with scripted(tmp_path / "s", answers):
            engine = Engine(str(tmp_path / "s"))
            with pytest.raises(StartError, match="no logs from conmon"):
                await enter(engine, "x", ("sh",), Wish(), lambda _: None, gone)
            await engine.close()

    asyncio.run(run())


async def unanswered(path: Path) -> None:
    engine = Engine(str(path))
    with pytest.raises(EngineError, match="does not answer"):
        await engine.call("GET", "/version")
    with pytest.raises(EngineError, match="does not answer"):
        await engine.hijack("/exec/x/start", body={})
    await engine.close()
    with pytest.raises(EngineError, match="does not answer"):
        await engine.call("GET", "/version")


def test_an_engine_that_is_not_there_or_talks_nonsense_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        await unanswered(tmp_path / "none")
        async with await answering(tmp_path / "nonsense", b"hello\r\n\r\n"):
            await unanswered(tmp_path / "nonsense")

    asyncio.run(run())


def test_a_streams_first_bytes_may_come_with_the_answers_head(tmp_path: Path) -> None:
    async def run() -> bytes:
        head = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        async with await answering(tmp_path / "s", head + frame(1, b"early")):
            reader, writer = await Engine(str(tmp_path / "s")).hijack(
                "/containers/x/attach", params={"stdout": "true"}
            )
            said: list[bytes] = []
            await frames(reader, False, lambda _stream, data: said.append(data))
            writer.close()
            return b"".join(said)

    assert asyncio.run(run()) == b"early"


VERSION = {"ApiVersion": "1.41", "Components": [{"Name": "Engine"}]}
INFO: dict[str, Any] = {
    "OSType": "linux",
    "SecurityOptions": ["name=seccomp,profile=default"],
    "CgroupDriver": "cgroupfs",
    "Driver": "overlay2",
    "DockerRootDir": "/tmp",
}


def test_an_engine_that_holds_what_agents_are_held_by_will_do() -> None:
    assert unfit(VERSION, INFO) == ""
    assert not is_podman(VERSION) and is_podman({"Components": [{"Name": "Podman Engine"}]})


@pytest.mark.parametrize(
    ("version", "info", "why"),
    [
        ({"ApiVersion": "1.40"}, {}, "take one that speaks 1.41"),
        ({"ApiVersion": None}, {}, "take one that speaks 1.41"),
        ({}, {"OSType": "windows"}, "one of Linux"),
        ({}, {"SecurityOptions": ["name=rootless"]}, "does not run as root"),
        ({}, {"Rootless": True}, "does not run as root"),
        ({}, {"SecurityOptions": ["name=userns"]}, "remaps users"),
        ({}, {"CgroupDriver": "systemd"}, "cgroupfs"),
        ({}, {"Driver": "vfs"}, "overlay"),
        ({}, {"DockerRootDir": "/nowhere"}, "not on this machine"),
    ],
)
def test_an_engine_that_cannot_hold_agents_is_refused_for_a_reason(
    version: dict[str, Any], info: dict[str, Any], why: str
) -> None:
    assert why in unfit({**VERSION, **version}, {**INFO, **info})


def test_a_server_does_not_start_with_an_engine_that_is_not_there(tmp_path: Path) -> None:
    async def run() -> None:
        outside = Outside(tmp_path / "none", tmp_path / "engine", tmp_path / "run")
        with pytest.raises(Invalid, match=r"--engine .*/none: the container engine does not answer"):
            await outside.probe()
        async with await answering(tmp_path / "s", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"):
            outside = Outside(tmp_path / "s", tmp_path / "engine", tmp_path / "run")
            with pytest.raises(Invalid, match=r"take one that speaks 1\.41"):
                await outside.probe()

    asyncio.run(run())


def test_who_joins_a_container_has_its_name_and_network() -> None:
    spec = ContainerSpec(POD, "main", 0, (), image_id="sha256:1", working_dir="")
    told = body(spec, mark="m", network="container:abc", parent="", devices=())
    assert told["HostConfig"]["NetworkMode"] == "container:abc" and "Hostname" not in told
    assert made()["Hostname"] == "p"

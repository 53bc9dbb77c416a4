"""KubeVirt's subresources over HTTP: discovery, access control, options, and plain streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.access import Place, robot, rule, tell
from support.closed import Closed

from walras.core.errors import Conflict
from walras.kube.serve.machines import PROTOCOL
from walras.kube.serve.ports import Entrance, Stream, Wish

Object = dict[str, Any]
GROUP = "/apis/subresources.kubevirt.io"
BOX = f"{GROUP}/v1/namespaces/default/virtualmachines/box"
INSTANCE = f"{GROUP}/v1/namespaces/default/virtualmachineinstances/box"


@dataclass
class Noted:
    """Machines that do what they are told, and note it."""

    said: list[tuple[Any, ...]] = field(default_factory=list)
    refuses: str = ""

    async def act(self, *where: Any) -> int:
        self.said.append(where)
        return 202

    def entrance(self, *where: str) -> Entrance:
        self.said.append(where)
        if self.refuses:
            raise Conflict(self.refuses)
        return Entrance({"metadata": {"name": "p"}}, "compute", ("login",))


class Shell:
    """Says everything back, in capitals, until it hears "exit"."""

    outputs: tuple[Stream, ...] = ("stdout",)

    def __init__(self) -> None:
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = False

    async def read(self, stream: Stream) -> bytes:
        return await self._said.get()

    async def write(self, data: bytes) -> None:
        self._said.put_nowait(b"" if data == b"exit" else data.upper())

    def end_input(self) -> None: ...

    def resize(self, columns: int, rows: int) -> None: ...

    async def wait(self) -> int:
        return 0

    async def close(self) -> None:
        self.closed = True


class Entered(Closed):
    """Pods with a shell in them, and a server of this test's behind each port."""

    def __init__(self) -> None:
        self.shell, self.port = Shell(), 0
        self.asked: list[Any] = []

    async def exec(self, cluster: str, pod: Any, container: str, argv: tuple[str, ...], wish: Wish) -> Shell:
        self.asked.append((container, argv, wish.tty))
        return self.shell

    async def dial(self, cluster: str, pod: Any, port: int) -> Any:
        self.asked.append(port)
        return await asyncio.open_connection("127.0.0.1", self.port)

    def logs(self, *_: Any, **__: Any) -> AsyncIterator[bytes]:
        raise NotImplementedError


class Talk:
    """A client's WebSocket."""

    def __init__(self, place: Place, path: str, token: str, *protocols: str) -> None:
        self._says: asyncio.Queue[Object] = asyncio.Queue()
        self._heard: asyncio.Queue[Object] = asyncio.Queue()
        self._says.put_nowait({"type": "websocket.connect"})
        raw = f"/clusters/one{path}"
        scope = {
            "type": "websocket", "path": raw, "raw_path": raw.encode(), "query_string": b"",
            "headers": [(b"authorization", f"Bearer {token}".encode())], "subprotocols": list(protocols),
        }  # fmt: skip
        self.task = asyncio.create_task(place.app(scope, self._says.get, self._hear))

    async def _hear(self, message: Any) -> None:
        self._heard.put_nowait(dict(message))

    async def hears(self) -> Object:
        async with asyncio.timeout(5):
            return await self._heard.get()

    def say(self, data: bytes) -> None:
        self._says.put_nowait({"type": "websocket.receive", "bytes": data})

    async def go(self) -> None:
        self._says.put_nowait({"type": "websocket.disconnect", "code": 1001})
        async with asyncio.timeout(5):
            await self.task


@asynccontextmanager
async def talking(place: Place, path: str, token: str = "one", *protocols: str) -> AsyncIterator[Talk]:
    talk = Talk(place, path, token, *(protocols or (PROTOCOL,)))
    try:
        yield talk
    finally:
        await talk.go()


def staged(place: Place) -> tuple[Noted, Entered]:
    noted, entered = Noted(), Entered()
    place.app.interactive.machines, place.app.pods = noted, entered
    return noted, entered


def test_discovery_lists_the_group_as_kubevirt_does() -> None:
    async def story(place: Place) -> None:
        groups = await place.must("one", "GET", "/apis")
        assert "subresources.kubevirt.io" in [each["name"] for each in groups["groups"]]
        listed = (await place.must("one", "GET", f"{GROUP}/v1"))["resources"]
        (start,) = [each for each in listed if each["name"] == "virtualmachines/start"]
        assert start | {"name": ""} == {
            "name": "", "singularName": "", "namespaced": True, "kind": "", "verbs": None,
        }  # fmt: skip
        assert all("/" in each["name"] for each in listed)
        media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        answer = await place.ask("one", "GET", "/apis", headers=[("accept", media)])
        (found,) = [
            each for each in answer.json()["items"] if each["metadata"]["name"] == "subresources.kubevirt.io"
        ]
        (version,) = found["versions"]
        assert {each["resource"] for each in version["resources"]} == {
            "virtualmachines", "virtualmachineinstances",
        }  # fmt: skip
        assert (
            f"apis{GROUP.removeprefix('/apis')}/v1"
            not in (await place.must("one", "GET", "/openapi/v3"))["paths"]
        )

    tell(story)


def test_an_act_takes_options_of_any_media_type_or_none() -> None:
    async def story(place: Place) -> None:
        noted, _ = staged(place)
        assert (await place.ask("one", "PUT", f"{BOX}/start")).status_code == 202
        answer = await place.ask("one", "PUT", f"{BOX}/stop", {"gracePeriod": 0})
        assert (answer.status_code, answer.content) == (202, b"")
        assert noted.said == [
            ("one", "virtualmachines", "default", "box", "start", {}),
            ("one", "virtualmachines", "default", "box", "stop", {"gracePeriod": 0}),
        ]
        for method, path, code in (
            ("POST", f"{BOX}/start", 405),
            ("PUT", f"{BOX}/fly", 404),
            ("PUT", f"{INSTANCE}/start", 404),
            ("PUT", f"{GROUP}/v1alpha3/namespaces/default/virtualmachines/box/start", 404),
            ("GET", BOX, 404),
            ("GET", f"{GROUP}/v1/virtualmachines", 404),
            ("GET", f"{INSTANCE}/console", 400),
        ):
            assert (await place.ask("one", method, path)).status_code == code, path
        assert (await place.ask("one", "PUT", f"{BOX}/start", [1])).status_code == 400
        for body in (b"{", b"[" * 5000, b'{"a":"\xff"}'):
            headers = {"authorization": "Bearer one"}
            refused = await place.http.put(f"/clusters/one{BOX}/start", content=body, headers=headers)
            assert refused.status_code == 400

    tell(story)


def test_who_may_start_a_machine_is_for_the_clusters_roles_to_say() -> None:
    async def story(place: Place) -> None:
        staged(place)
        await place.account()
        token = await place.token()
        group = "subresources.kubevirt.io"
        assert (await place.ask(token, "PUT", f"{BOX}/start")).status_code == 403
        await place.role("starts", rule("update", "virtualmachines/start", group))
        await place.bind("starts", robot())
        assert (await place.ask(token, "PUT", f"{BOX}/start")).status_code == 202
        assert (await place.ask(token, "PUT", f"{BOX}/stop")).status_code == 403
        async with talking(place, f"{INSTANCE}/console", token) as talk:
            assert (await talk.hears())["status"] == 403
        await place.role("looks", rule("get", "virtualmachineinstances/console", group))
        await place.bind("looks", robot())
        async with talking(place, f"{INSTANCE}/console", token) as talk:
            assert (await talk.hears())["type"] == "websocket.accept"
        answer = await place.ask("operator", "PUT", f"{BOX}/start", cluster="*")
        assert answer.status_code == 404
        # Another agent is nobody here.
        assert (await place.ask("two", "PUT", f"{BOX}/start")).status_code == 403

    tell(story)


def test_whoever_may_view_looks_at_machines_and_whoever_may_edit_starts_and_enters_them() -> None:
    async def story(place: Place) -> None:
        staged(place)
        await place.account()
        token = await place.token()
        listed = "/apis/kubevirt.io/v1/namespaces/default/virtualmachines"
        assert await place.get(token, listed) == 403
        await place.bind("view", robot(), namespace="default")
        assert await place.get(token, listed) == 200
        assert (await place.ask(token, "PUT", f"{BOX}/start")).status_code == 403
        async with talking(place, f"{INSTANCE}/console", token) as talk:
            assert (await talk.hears())["status"] == 403
        await place.bind("edit", robot(), namespace="default")
        assert (await place.ask(token, "PUT", f"{BOX}/start")).status_code == 202
        async with talking(place, f"{INSTANCE}/console", token) as talk:
            assert (await talk.hears())["type"] == "websocket.accept"

    tell(story)


@pytest.mark.parametrize("act", ["virtualmachineinstances/pause", "virtualmachines/start"])
def test_whoever_may_get_what_is_no_stream_gets_no_console_by_it(act: str) -> None:
    async def story(place: Place) -> None:
        noted, entered = staged(place)
        await place.account()
        token = await place.token()
        await place.role("looks", rule("get", act, "subresources.kubevirt.io"))
        await place.bind("looks", robot())
        plural, _, name = act.partition("/")
        async with talking(place, f"{GROUP}/v1/namespaces/default/{plural}/box/{name}", token) as talk:
            assert (await talk.hears())["status"] == 405
        assert not noted.said and not entered.asked

    tell(story)


@pytest.mark.parametrize("protocols", [(PROTOCOL,), ("v4.channel.k8s.io",)])
def test_a_console_is_a_plain_stream_to_a_terminal_until_either_end_goes(protocols: tuple[str, ...]) -> None:
    async def story(place: Place) -> None:
        noted, entered = staged(place)
        async with talking(place, f"{INSTANCE}/console", "one", *protocols) as talk:
            spoken = PROTOCOL if protocols == (PROTOCOL,) else None
            assert await talk.hears() == {"type": "websocket.accept", "subprotocol": spoken}
            talk.say(b"hello")
            assert (await talk.hears())["bytes"] == b"HELLO"
            talk.say(b"exit")
            assert (await talk.hears())["type"] == "websocket.close"
        assert entered.asked == [("compute", ("login",), True)] and entered.shell.closed
        noted.refuses = "VMI is paused"
        async with talking(place, f"{INSTANCE}/console") as talk:
            assert (await talk.hears())["status"] == 409

    tell(story)


@pytest.mark.parametrize("kind", [BOX, INSTANCE])
def test_a_port_is_forwarded_as_it_is(kind: str) -> None:
    async def story(place: Place) -> None:
        _, entered = staged(place)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"you said " + await reader.read(100))
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        entered.port = server.sockets[0].getsockname()[1]
        async with server:
            for rest in ("22", "22/tcp"):
                async with talking(place, f"{kind}/portforward/{rest}") as talk:
                    await talk.hears()
                    talk.say(b"hi")
                    assert (await talk.hears())["bytes"] == b"you said hi"
                    assert (await talk.hears())["type"] == "websocket.close"
            assert entered.asked == [22, 22]
            for rest in ("22/udp", "0", "x", "", "22/tcp/x"):
                async with talking(place, f"{kind}/portforward/{rest}") as talk:
                    assert (await talk.hears())["status"] == 400, rest

    tell(story)

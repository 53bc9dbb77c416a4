"""Functions in a world in memory: instances are programs of the test at the other end of a socket pair."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from support.world import AGENT, World, tell
from walras.core.errors import ServiceUnavailable
from walras.functions.activator import WITHIN
from walras.functions.functions import Functions
from walras.functions.hosts import Domain
from walras.functions.words import REVISIONS, SERVICES, Where
from walras.kube import defaults
from walras.kube.context import Identity
from walras.kube.serve.fair import Fair

Object = dict[str, Any]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# What an instance does with a connection; the pod is given.
Program = Callable[[Object, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
DOMAIN = "functions.localhost"
NAME = "serving.knative.dev/revision"


async def name_itself(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers every request on the connection with the name of its revision, then that of its pod."""
    while True:
        try:
            await reader.readuntil(b"\r\n\r\n")
        except EOFError:
            return
        body = f"{pod['metadata']['labels'][NAME]} {pod['metadata']['name']}".encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


@dataclass
class Answer:
    """What a caller got."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    # Whether it came to its end.
    whole: bool = False

    @property
    def revision(self) -> str:
        return self.body.decode().split(" ")[0]

    @property
    def reason(self) -> str:
        """Of a refusal."""
        return str(json.loads(self.body)["reason"])


@dataclass
class Call:
    """A caller: sends a request, and hears the answer, or goes away."""

    app: Any
    host: str
    method: str = "GET"
    path: str = "/"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: tuple[bytes, ...] = (b"",)
    # Whether the body ends with its last piece.
    is_whole: bool = True
    # The cluster of the pod that calls.
    within: str = ""
    # Whether it takes what comes after a body, as callers in HTTP/2 do.
    trailers: bool = False
    answer: Answer = field(default_factory=Answer)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._pieces = list(self.body)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> Answer:
        scope = {
            "type": "http",
            "method": self.method,
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": b"",
            "headers": [(b"host", self.host.encode()), *self.headers] if self.host else [*self.headers],
            "client": ("192.0.2.1", 1234),
            **({WITHIN: self.within} if self.within else {}),
            **({"extensions": {"http.response.trailers": {}}} if self.trailers else {}),
        }
        await self.app(scope, self._receive, self._send)
        return self.answer

    async def _receive(self) -> Object:
        if self._pieces:
            data = self._pieces.pop(0)
            return {
                "type": "http.request",
                "body": data,
                "more_body": bool(self._pieces) or not self.is_whole,
            }
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Object) -> None:
        if message["type"] == "http.response.start":
            self.answer.status, self.answer.headers = message["status"], list(message["headers"])
        elif message["type"] == "http.response.trailers":
            self.answer.trailers = list(message["headers"])
        else:
            self.answer.body += message["body"]
            self.answer.whole = not message["more_body"]
            if self.answer.whole:
                # As servers say it, before the application has returned.
                self.gone.set()
                await asyncio.sleep(0)
                await asyncio.sleep(0)


@dataclass
class Talk:
    """A caller over a WebSocket: what it says, and what it hears."""

    app: Any
    host: str
    protocols: tuple[str, ...] = ()
    heard: list[Object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._says: asyncio.Queue[Object] = asyncio.Queue()
        self._says.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        scope = {
            "type": "websocket",
            "path": "/talk",
            "raw_path": b"/talk",
            "query_string": b"a=b",
            "headers": [
                (b"host", self.host.encode()),
                (b"connection", b"upgrade"),
                (b"upgrade", b"websocket"),
                (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
                (b"sec-websocket-version", b"13"),
                (b"sec-websocket-extensions", b"permessage-deflate"),
            ],
            "subprotocols": list(self.protocols),
            "client": ("192.0.2.1", 1234),
        }
        await self.app(scope, self._says.get, self._hear)

    async def _hear(self, message: Object) -> None:
        self.heard.append(message)

    def say(self, text: str = "", data: bytes | None = None) -> None:
        said: Object = {"text": text} if data is None else {"bytes": data}
        self._says.put_nowait({"type": "websocket.receive", **said})

    def go(self) -> None:
        self._says.put_nowait({"type": "websocket.disconnect", "code": 1001})


@dataclass
class Stage:
    """A world with functions in it. `program` is what instances run; `dead` pods refuse connections."""

    world: World
    program: Program = name_itself
    dead: set[str] = field(default_factory=set)
    dialed: list[str] = field(default_factory=list)
    tokens: dict[str, Identity] = field(default_factory=dict)
    fair: Fair = field(default_factory=Fair)
    own_host: str = ""

    def __post_init__(self) -> None:
        planes = self.world.planes
        self._tasks: set[asyncio.Task[None]] = set()
        self.functions = Functions(
            self.world.api, self.world.clock, planes.manager, planes.recorder, planes.dependents,
            Domain(DOMAIN, 80, 81), self._dial, self._identify, self.fair,
            own_host=self.own_host, sleep=lambda _: asyncio.sleep(0),
        )  # fmt: skip

    async def _identify(self, token: str) -> Identity | None:
        return self.tokens.get(token)

    async def _dial(self, cluster: str, pod: Object, port: int) -> Streams:
        name = pod["metadata"]["name"]
        self.dialed.append(name)
        found = self.world.api.find(cluster, "pods", pod["metadata"]["namespace"], name) or {}
        if name in self.dead or found.get("status", {}).get("phase") != "Running":
            raise ServiceUnavailable(f'pod "{name}" does not answer on port {port}: connection refused')
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        task = asyncio.create_task(self._play(pod, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.open_connection(sock=ours)

    async def _play(self, pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.program(pod, reader, writer)
        except OSError:
            pass
        finally:
            writer.close()

    def hold(self, gate: asyncio.Event) -> None:
        """Instances answer when the gate is open."""
        plain = self.program

        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gate.wait()
            await plain(pod, reader, writer)

        self.program = program

    async def close(self) -> None:
        await self.functions.app.close()
        await self.functions.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What happens

    async def until(self, look: Callable[[], Any]) -> None:
        """Lets everything run that can run now, until it is true."""
        for _ in range(2000):
            await self.world.settle()
            if look():
                return
            await asyncio.sleep(0)
        raise AssertionError("it does not come about")

    async def apply(self, service: Object, cluster: str = AGENT) -> None:
        """The service is as it says here, and its controllers have seen it."""
        name = service["metadata"]["name"]
        defaults.apply(self.world.api.registry(cluster)[SERVICES], service)
        found = self.world.api.find(cluster, SERVICES, "default", name)
        if found is None:
            await self.world.create(SERVICES, service, cluster)
        else:
            await self.world.api.edit(
                cluster, SERVICES, "default", name, lambda latest: latest.update(spec=service["spec"])
            )
        await self.world.settle()

    async def run_all(self, cluster: str = AGENT) -> None:
        """The runtime starts every pod that it has not started, and they accept connections."""
        for pod in self.world.pods(cluster=cluster):
            if pod.get("status", {}).get("phase") != "Running":
                await self.world.set_status(pod, cluster, phase="Running")
        backends = self.functions.backends
        await self.until(
            lambda: all(
                each.ready or each.pod["metadata"]["name"] in self.dead
                for backend in backends
                for each in backend.instances.values()
                if each.is_staying
            )
        )

    async def ready(self, service: Object, cluster: str = AGENT) -> None:
        """The service is there and its first instances answer."""
        await self.apply(service, cluster)
        await self.run_all(cluster)
        await self.world.settle()

    async def seconds(self, count: int) -> None:
        """Time goes by as it does, and not in one leap."""
        for _ in range(count):
            await self.world.later(1)

    async def idle(self, seconds: int = 120) -> None:
        """Nothing is asked for a while, and pods that are deleted go."""
        await self.seconds(seconds)
        await self.sweep()

    async def sweep(self) -> None:
        """The runtime is done with pods that are deleted."""
        for name in self.world.api.clusters():
            for pod in self.world.api.list(name, "pods"):
                if "deletionTimestamp" in pod["metadata"]:
                    await self.world.remove(pod, name)

    async def refuse_bids(self) -> None:
        """The market refuses the bid of every pod."""
        for pod in self.world.pods():
            explanation = {"reason": "Outbid", "message": "others pay 9.00"}
            bid = {
                "metadata": {"name": pod["metadata"]["name"], "namespace": "default"},
                "spec": {"class": "latency", "packages": [{"maxPrice": "1.00"}]},
                "status": {"phase": "Refused", "explanation": explanation},
            }
            await self.world.api.create(AGENT, "bids.walras.dev", bid)

    def call(self, host: str = f"hello.default.{AGENT}.{DOMAIN}", **asked: Any) -> Call:
        return Call(self.functions.app, host, **asked)

    def talk(self, host: str = f"hello.default.{AGENT}.{DOMAIN}", *protocols: str) -> Talk:
        return Talk(self.functions.app, host, protocols)

    async def get(self, host: str = f"hello.default.{AGENT}.{DOMAIN}", **asked: Any) -> Answer:
        return await asyncio.wait_for(self.call(host, **asked).task, 10)

    # What is there

    def status(self, resource: str = SERVICES, name: str = "hello", cluster: str = AGENT) -> Object:
        found: Object = self.world.api.get(cluster, resource, "default", name).get("status") or {}
        return found

    def ready_of(self, resource: str = SERVICES, name: str = "hello") -> tuple[str, str]:
        """(status, reason) of the condition Ready."""
        conditions = self.status(resource, name)["conditions"]
        found = next(each for each in conditions if each["type"] == "Ready")
        return found["status"], found.get("reason", "")

    def backend(self, revision: str = "hello-00001", cluster: str = AGENT) -> Any:
        return self.functions.backends.get(Where(cluster, "default", revision))

    def revisions(self) -> list[str]:
        return [each["metadata"]["name"] for each in self.world.api.list(AGENT, REVISIONS)]


def stage(
    story: Callable[[Stage], Coroutine[Any, Any, None]],
    *,
    agents: tuple[str, ...] = (AGENT,),
    fair: Fair | None = None,
    own_host: str = "",
) -> None:
    """Runs a story on a stage of its own."""

    async def told(world: World) -> None:
        made = Stage(world, fair=fair or Fair(), own_host=own_host)
        await made.functions.start()
        try:
            await story(made)
        finally:
            await made.close()

    tell(told, agents=agents)


def service(
    name: str = "hello",
    *,
    says: str = "",
    traffic: list[Object] | None = None,
    revision: str = "",
    **annotations: str,
) -> Object:
    """A Service whose template differs with what it `says`; annotations are those of the autoscaler."""
    prefix = "autoscaling.knative.dev/"
    metadata: Object = {
        "annotations": {prefix + key.replace("_", "-"): value for key, value in annotations.items()}
    }
    if revision:
        metadata["name"] = revision
    container = {"image": "none", "command": ["serve"], "env": [{"name": "SAYS", "value": says}]}
    spec: Object = {"template": {"metadata": metadata, "spec": {"containers": [container]}}}
    if traffic is not None:
        spec["traffic"] = traffic
    return {"metadata": {"name": name}, "spec": spec}

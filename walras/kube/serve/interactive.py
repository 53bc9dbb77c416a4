"""exec, attach, port-forward and logs over WebSockets: who may, of which pod, in which protocol."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from walras.core.clock import Clock
from walras.core.errors import BadRequest, NotFound, ServiceUnavailable, TooManyRequests, WalrasError
from walras.kube import machines
from walras.kube.access.authoriser import Authoriser
from walras.kube.context import EVERY_CLUSTER
from walras.kube.objects import PODS
from walras.kube.registry import Registry, Resource
from walras.kube.serve import channels, forwarding, logsocket, pods, requests, status
from walras.kube.serve import machines as machine_acts
from walras.kube.serve.asking import attributes
from walras.kube.serve.paths import Route
from walras.kube.serve.ports import Machines, PodAccess, Session, Wish
from walras.kube.serve.requests import Request
from walras.kube.serve.sockets import Socket, SocketGone
from walras.kube.verbs import Verbs

Object = dict[str, Any]

SESSIONS_MAX: Final = 100
SUBRESOURCES: Final = ("attach", "exec", "log", "portforward")
ARGUMENT_BYTES_MAX: Final = 64 << 10
_UPGRADE: Final = "Upgrade request required"
_SPDY: Final = (
    "unable to upgrade: SPDY/3.1 is not spoken here, only WebSocket: use a client that speaks it, such as "
    "kubectl 1.31 or later, with neither KUBECTL_REMOTE_COMMAND_WEBSOCKETS nor "
    "KUBECTL_PORT_FORWARD_WEBSOCKETS set to false"
)


class Interactive:
    """What is asked for, checked before anything is accepted. `pods_of` gives what there is of a runtime."""

    def __init__(
        self, verbs: Verbs, authoriser: Authoriser, clock: Clock, pods_of: Callable[[], PodAccess | None]
    ) -> None:
        self._verbs = verbs
        self._clock = clock
        self._authoriser = authoriser
        self._pods_of = pods_of
        # KubeVirt's, where there are machines.
        self.machines: Machines | None = None
        # Connections into pods, and how many each cluster's users have together.
        self.open: set[asyncio.Task[None]] = set()
        self._count: Counter[tuple[str, str]] = Counter()

    async def close(self) -> None:
        """Ends every connection."""
        tasks = list(self.open)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def hold(
        self, request: Request, registry: Registry, socket: Socket, offered: Sequence[str]
    ) -> None:
        """Serves the connection to its end, or until its task in `open` is cancelled.

        Raises WalrasError while the connection can be refused.
        """
        payer = request.identity.payer
        if self._count[payer] >= SESSIONS_MAX:
            raise TooManyRequests(f"more than {SESSIONS_MAX} open sessions; close some", retry_after_s=5)
        task = asyncio.ensure_future(self._serving(request, registry, socket, offered))
        self.open.add(task)
        self._count[payer] += 1
        try:
            await asyncio.wait((task,))
            if not task.cancelled():
                task.result()
        finally:
            task.cancel()
            self.open.discard(task)
            self._count[payer] -= 1
            if not self._count[payer]:
                del self._count[payer]

    def _serving(
        self, request: Request, registry: Registry, socket: Socket, offered: Sequence[str]
    ) -> Coroutine[Any, Any, None]:
        """What serves the connection. Raises NotFound, Forbidden, ServiceUnavailable."""
        if request.route.group == machines.GROUP:
            acting = machine_acts.check(request, self.machines)
            return machine_acts.hold(request, acting, self.access(), socket, offered)
        return self._serve(request, self._resource(request, registry), socket, offered)

    def _resource(self, request: Request, registry: Registry) -> Resource:
        """That of pods, where one of them is to be entered or listened to. Raises NotFound, Forbidden."""
        route = request.route
        resource = registry.find(route.group, route.version, route.plural)
        if (
            resource is None
            or resource.key != PODS
            or route.subresource not in SUBRESOURCES
            or route.cluster == EVERY_CLUSTER
        ):
            raise NotFound(status.NOT_SERVED)
        if route.subresource != "log":
            # As with a POST: to be allowed to look at a pod is not enough.
            wanted = attributes(request)._replace(verb="create")
            self._authoriser.require(request.identity, route.cluster, wanted)
        return resource

    def access(self) -> PodAccess:
        """The way to the pods. Raises ServiceUnavailable."""
        access = self._pods_of()
        if access is None:
            raise ServiceUnavailable("no runtime is connected to this server yet", retry_after_s=1)
        return access

    async def refusal(self, request: Request, resource: Resource) -> BadRequest:
        """What to answer to a request that is no WebSocket. Raises what would be wrong with one, too.

        A client whose WebSocket was refused tries SPDY next, and shows what that is answered.
        """
        await self._admit(request, resource, self._checked(request, resource))
        asks = request.header(b"upgrade").lower()
        return BadRequest(_SPDY if asks.startswith("spdy") else _UPGRADE)

    def _checked(self, request: Request, resource: Resource) -> _Asked:
        pod = self._verbs.get(request.context(), resource, request.route.namespace, request.route.name)
        if request.route.subresource == "portforward":
            _check_running(pod)
            ports = [forwarding.port_of(text) for text in _values(request, "ports")]
            if len(ports) > forwarding.PORTS_MAX:
                raise BadRequest(f"at most {forwarding.PORTS_MAX} ports can be forwarded together")
            return _Asked(pod, ports=ports)
        query = request.query
        container = pods.container_of(pod, query.get("container", ""))
        flags = {name: requests.flag(query, name) for name in ("stdin", "stdout", "stderr", "tty")}
        wanted = channels.wish(flags)
        command: tuple[str, ...] = ()
        if request.route.subresource == "exec":
            command = _command(request)
        _check_running(pod)
        return _Asked(pod, container, command, wanted)

    async def _serve(
        self, request: Request, resource: Resource, socket: Socket, offered: Sequence[str]
    ) -> None:
        if request.route.subresource == "log":
            await self._log(request, resource, socket, offered)
            return
        asked, access = self._checked(request, resource), self.access()
        cluster, forwards = request.route.cluster, request.route.subresource == "portforward"
        spoken = forwarding.PROTOCOLS if forwards else channels.PROTOCOLS
        protocol = next((each for each in offered if each in spoken), None)
        if protocol is None:
            raise BadRequest(f"unable to upgrade: speak one of the protocols {', '.join(spoken)}")
        if forwards and protocol == forwarding.CHANNELS and not asked.ports:
            raise BadRequest('query parameter "ports" is required')
        await self._admit(request, resource, asked)

        async def dial(port: int) -> Any:
            return await access.dial(cluster, asked.pod, port)

        if forwards:
            await socket.accept(protocol)
            if protocol == forwarding.TUNNEL:
                await forwarding.Tunnel(socket, dial).run()
            else:
                await forwarding.Channels(socket, dial, asked.ports).run()
            return
        session: Session | None = None
        attaches = request.route.subresource == "attach"
        if attaches:
            session = access.attach(cluster, asked.pod, asked.container, asked.wanted)
        await socket.accept(protocol)
        try:
            if session is None:
                session = await self._start(access, cluster, asked, socket, protocol)
            if session is not None:
                # As the kubelet: what came of a container is in its status.
                await channels.converse(socket, session, asked.wanted, protocol, tells_code=not attaches)
        finally:
            if session is not None:
                await session.close()

    async def _log(
        self, request: Request, resource: Resource, socket: Socket, offered: Sequence[str]
    ) -> None:
        protocol = next((each for each in offered if each in logsocket.PROTOCOLS), "")
        if offered and not protocol:
            raise BadRequest(f"unable to upgrade: speak one of {', '.join(logsocket.PROTOCOLS)}, or none")
        route, access = request.route, self.access()
        pod = self._verbs.get(request.context(), resource, route.namespace, route.name)
        log = await pods.log(access, route.cluster, pod, request.query, self._clock.now_ms())
        await logsocket.send(socket, protocol, log)

    async def _admit(self, request: Request, resource: Resource, asked: _Asked) -> None:
        """Raises what admission forbids."""
        route, options = request.route, _options(request.route, asked)
        await self._verbs.connect(
            request.context(), resource, route.namespace, route.name, route.subresource, options
        )

    async def _start(
        self, access: PodAccess, cluster: str, asked: _Asked, socket: Socket, protocol: str
    ) -> Session | None:
        """The program; None where it cannot start, which is told."""
        try:
            return await access.exec(cluster, asked.pod, asked.container, asked.command, asked.wanted)
        except WalrasError as error:
            with suppress(SocketGone):
                await channels.tell(socket, channels.failure(error), protocol)
            return None


_NOTHING: Final = Wish()


@dataclass(frozen=True, slots=True)
class _Asked:
    pod: Object
    container: str = ""
    command: tuple[str, ...] = ()
    wanted: Wish = _NOTHING
    ports: Sequence[int] = ()


def _options(route: Route, asked: _Asked) -> Object:
    """The request as admission is shown it: PodExecOptions and so on."""
    if route.subresource == "portforward":
        return {"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": list(asked.ports)}
    kind = "PodExecOptions" if route.subresource == "exec" else "PodAttachOptions"
    flags = {name: True for name in ("stdin", "stdout", "stderr", "tty") if getattr(asked.wanted, name)}
    options: Object = {"kind": kind, "apiVersion": "v1", **flags, "container": asked.container}
    if asked.command:
        options["command"] = list(asked.command)
    return options


def _check_running(pod: Object) -> None:
    name = pod["metadata"]["name"]
    phase = (pod.get("status") or {}).get("phase", "")
    if not pod["spec"].get("nodeName"):
        raise BadRequest(f"pod {name} does not have a host assigned")
    if phase in ("Succeeded", "Failed"):
        raise BadRequest(f"cannot enter pod {name}: its current phase is {phase}")


def _values(request: Request, name: str) -> list[str]:
    """Every value of a parameter that may be given more than once."""
    pairs = parse_qsl(
        request.query_string, keep_blank_values=True, encoding="utf-8", errors="surrogateescape"
    )
    return [value for key, value in pairs if key == name]


def _command(request: Request) -> tuple[str, ...]:
    command = tuple(_values(request, "command"))
    if not command or not command[0]:
        raise BadRequest("you must specify at least 1 command")
    if len(command) > channels.COMMAND_MAX or sum(map(len, command)) > ARGUMENT_BYTES_MAX:
        limits = f"{channels.COMMAND_MAX} words and {ARGUMENT_BYTES_MAX} bytes"
        raise BadRequest(f"a command has at most {limits}")
    if any("\x00" in word for word in command):
        raise BadRequest("a command has no zero bytes")
    return command

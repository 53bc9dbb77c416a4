"""The networks of all agents: made with an agent's first pod, gone with its last.

Nothing is kept by the kernel beyond the descriptors and processes of the server and its pods, so that nothing
has to be cleared away after a crash.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Final

import structlog

from walras.kube import services
from walras.runtimes.base import PodRef
from walras.runtimes.network import links
from walras.runtimes.network.entrance import Entrance, Helper, Thread
from walras.runtimes.network.names import API_PORT
from walras.runtimes.network.nftables import rules
from walras.runtimes.network.resolver import Resolver

if TYPE_CHECKING:
    from walras.runtimes.network.services import Directory

log = structlog.get_logger(__name__)

# The same for every agent: they never meet.
POD_RANGE: Final = IPv4Network("10.244.0.0/16")
NAME_SERVER: Final = POD_RANGE[1]
API_ADDRESS: Final = services.RANGE[1]
FUNCTIONS_PORT: Final = 80
_FIRST_POD: Final = 2
DNS_PORT: Final = 53
_REACHED: Final = (str(POD_RANGE), str(services.RANGE))

Connected = Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(eq=False, slots=True)
class PodNetwork:
    """A pod's own: the descriptor of its namespace, its address, and its place in the agent's.

    Without a namespace (-1) the pod is a machine, which has a device of the agent's for itself. `closed`: the
    descriptor is another's by now.
    """

    namespace: int
    address: str
    index: int
    # What a command line begins with whose program starts in it, where its starter cannot enter it.
    way_in: tuple[str, ...] = ()
    closed: bool = False

    @property
    def has_namespace(self) -> bool:
        return self.namespace >= 0

    @property
    def hardware_address(self) -> str:
        """Of a machine's device: locally administered, one for each address of the agent's network."""
        return ":".join(f"{each:02x}" for each in (2, 1, *IPv4Address(self.address).packed))

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self.has_namespace:
                os.close(self.namespace)


@dataclass(eq=False)
class _Agent:
    cluster: str
    namespace: int
    pods: dict[str, PodNetwork] = field(default_factory=dict)
    resolver: Resolver | None = None
    servers: list[asyncio.Server] = field(default_factory=list)
    calls: set[asyncio.StreamWriter] = field(default_factory=set)
    turn: int = 0
    # Whether it ever had rules.
    ruled: bool = False

    def take(self) -> tuple[int, IPv4Address]:
        """An index and address that no pod has, as long as possible after the last pod that had them."""
        taken = {each.index for each in self.pods.values()}
        room = POD_RANGE.num_addresses - _FIRST_POD - 1
        if len(taken) >= room:
            raise OSError("no address is left for another pod of the agent")
        while self.turn % room + links.FIRST_DEVICE in taken:
            self.turn += 1
        number = self.turn % room
        self.turn += 1
        return number + links.FIRST_DEVICE, POD_RANGE[number + _FIRST_POD]

    def close(self) -> None:
        if self.resolver is not None:
            self.resolver.close()
        for server in self.servers:
            server.close()
        for writer in self.calls:
            # What the pod has not taken it never will, and nothing that it sent is for another's cluster.
            writer.transport.abort()
        os.close(self.namespace)


class Networks:
    """`missing` says why there are none, or what they lack; "" for nothing.

    `no_taps`: why machines have none.
    """

    def __init__(self) -> None:
        self.missing = self.no_taps = ""
        # Serves a connection from a pod to its agent's API server.
        self.connected: Connected | None = None
        # The same for a connection to its agent's functions.
        self.asked: Connected | None = None
        self._entrance: Entrance | None = None
        self._directory: Directory | None = None
        self._agents: dict[str, _Agent] = {}
        # Namespaces are made, used and given up by one at a time: a descriptor that somebody else closes
        # meanwhile could be another agent's when it is used.
        self._turn = asyncio.Lock()

    @property
    def available(self) -> bool:
        return self._entrance is not None

    async def open(self) -> None:
        """Finds out what this machine allows, by doing it."""
        entrance: Entrance | None = None
        try:
            entrance = Thread() if os.geteuid() == 0 else await asyncio.to_thread(Helper)
            agent = await entrance.do("make_agent", (), [str(NAME_SERVER)])
            try:
                os.close(
                    await entrance.do("make_pod", (agent,), links.FIRST_DEVICE, str(POD_RANGE[2]), _REACHED)
                )
                await self._try_tap(entrance, agent)
                await self._try_rules(entrance, agent)
            finally:
                os.close(agent)
        except OSError as error:
            self.missing = self.no_taps = f"pods have no network but loopback: {error.strerror or error}"
            if entrance is not None:
                entrance.close()
            return
        self._entrance = entrance

    async def _try_tap(self, entrance: Entrance, agent: int) -> None:
        try:
            os.close(
                await entrance.do(
                    "make_tap", (agent,), links.FIRST_DEVICE + 1, str(POD_RANGE[_FIRST_POD + 1])
                )
            )
        except OSError as error:
            of_it = f": {error.filename}" if error.filename else ""
            self.no_taps = f"machines have no network but loopback: {error.strerror}{of_it}"

    async def _try_rules(self, entrance: Entrance, agent: int) -> None:
        try:
            await entrance.do("set_rules", (agent,), rules(()))
        except OSError as error:
            why = error.strerror or str(error)
            self.missing = f"Services have no addresses: the kernel takes no nf_tables rules ({why})"

    async def close(self) -> None:
        for agent in list(self._agents.values()):
            for each in agent.pods.values():
                each.close()
            agent.close()
        self._agents.clear()
        if self._entrance is not None:
            self._entrance.close()
            self._entrance = None

    def serve(self, directory: Directory) -> None:
        """Services and names come from there, from now on."""
        self._directory = directory

    # Pods

    def of(self, pod: PodRef) -> PodNetwork | None:
        """The pod's network; None when it has none."""
        agent = self._agents.get(pod.cluster)
        return agent.pods.get(pod.uid) if agent is not None else None

    async def join(self, pod: PodRef, *, machine: bool = False) -> PodNetwork | None:
        """Gives the pod a network, once; None where there are none. Raises OSError.

        `machine`: it has no namespace, and its machine reaches the network by `tap`.
        """
        entrance = self._entrance
        if entrance is None or (machine and self.no_taps):
            return None
        async with self._turn:
            agent = self._agents.get(pod.cluster) or await self._made(entrance, pod.cluster)
            found = agent.pods.get(pod.uid)
            if found is None:
                try:
                    found = await self._connect(entrance, agent, pod, machine)
                finally:
                    self._drop_if_empty(agent)
            return found

    async def _connect(self, entrance: Entrance, agent: _Agent, pod: PodRef, machine: bool) -> PodNetwork:
        index, address = agent.take()
        if machine:
            found = PodNetwork(-1, str(address), index)
        else:
            namespace = await entrance.do("make_pod", (agent.namespace,), index, str(address), _REACHED)
            found = PodNetwork(namespace, str(address), index, tuple(entrance.way_in(namespace)))
        agent.pods[pod.uid] = found
        return found

    async def tap(self, pod: PodRef) -> int:
        """The end of a machine's device in its agent's network: a descriptor, with which it goes.

        -1 for a pod that has not joined as one. Raises OSError, also while an earlier one is there.
        """
        async with self._turn:
            agent = self._agents.get(pod.cluster)
            found = agent.pods.get(pod.uid) if agent is not None else None
            if self._entrance is None or agent is None or found is None or found.has_namespace:
                return -1
            return await self._entrance.do("make_tap", (agent.namespace,), found.index, found.address)

    async def _made(self, entrance: Entrance, cluster: str) -> _Agent:
        namespace = await entrance.do("make_agent", (), [str(NAME_SERVER), str(API_ADDRESS)])
        agent = _Agent(cluster, namespace)
        try:
            if self._directory is not None:
                packets = await self._listen(entrance, agent, socket.SOCK_DGRAM, NAME_SERVER, DNS_PORT)
                streams = await self._listen(entrance, agent, socket.SOCK_STREAM, NAME_SERVER, DNS_PORT)
                names = self._directory.names(cluster, str(API_ADDRESS))
                agent.resolver = Resolver(
                    packets, streams, lambda query, most: names.answer(query, bytes_max=most)
                )
                await agent.resolver.open()
            for serve, port in ((self.connected, API_PORT), (self.asked, FUNCTIONS_PORT)):
                if serve is not None:
                    calls = await self._listen(entrance, agent, socket.SOCK_STREAM, API_ADDRESS, port)
                    agent.servers.append(await asyncio.start_server(_caller(agent, serve), sock=calls))
        except BaseException:
            agent.close()
            raise
        self._agents[cluster] = agent
        await self._refresh(entrance, agent)
        return agent

    async def _listen(
        self, entrance: Entrance, agent: _Agent, kind: int, address: IPv4Address, port: int
    ) -> socket.socket:
        return socket.socket(
            fileno=await entrance.do("listen", (agent.namespace,), int(kind), str(address), port)
        )

    async def leave(self, pod: PodRef) -> None:
        """Takes the pod's network away, with the agent's when it was the last; fine when it has none."""
        async with self._turn:
            agent = self._agents.get(pod.cluster)
            found = agent.pods.pop(pod.uid, None) if agent is not None else None
            if agent is None or found is None:
                return
            # The kernel takes the devices away with the namespace, many at once and in its own time.
            found.close()
            self._drop_if_empty(agent)

    def _drop_if_empty(self, agent: _Agent) -> None:
        if not agent.pods and self._agents.pop(agent.cluster, None) is not None:
            agent.close()

    async def socket_in(self, network: PodNetwork, family: socket.AddressFamily) -> socket.socket:
        """A TCP socket that belongs to the pod's namespace. Raises OSError."""
        if self._entrance is None or network.closed or not network.has_namespace:
            raise OSError("the pod's network is gone")
        act = self._entrance.do("open_socket", (network.namespace,), int(family), int(socket.SOCK_STREAM))
        return socket.socket(fileno=await act)

    # Services

    @property
    def live(self) -> frozenset[str]:
        """The agents that have a network at the moment."""
        return frozenset(self._agents)

    async def refresh(self, cluster: str) -> None:
        """Brings the rules in line with the agent's Services, where it has a network."""
        async with self._turn:
            agent = self._agents.get(cluster)
            if agent is not None and self._entrance is not None:
                await self._refresh(self._entrance, agent)

    async def _refresh(self, entrance: Entrance, agent: _Agent) -> None:
        wanted = self._directory.forwards(agent.cluster) if self._directory is not None else []
        if not wanted and not agent.ruled:
            return
        try:
            batch = await asyncio.to_thread(rules, wanted)
            await entrance.do("set_rules", (agent.namespace,), batch)
            agent.ruled = True
        except OSError as error:
            why = error.strerror or str(error)
            log.warning("Services without addresses", cluster=agent.cluster, error=why)


def _caller(
    agent: _Agent, serve: Connected
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        agent.calls.add(writer)
        try:
            await serve(agent.cluster, reader, writer)
        finally:
            agent.calls.discard(writer)
            writer.close()

    return called

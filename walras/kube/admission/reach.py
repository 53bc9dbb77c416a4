"""Where a webhook may be: a pod of the cluster that asks, behind one of its Services, or a public address.

The server makes the request for a tenant, so what only the server can reach is out of reach: this machine,
its network, metadata services. docs/decisions has why.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from walras.core.errors import ServiceUnavailable
from walras.kube.admission.http import HEAD_BYTES_MAX, CalloutFailed, Streams, post, trust
from walras.kube.objects import PODS
from walras.kube.record import Object
from walras.kube.selectors import from_label_selector

if TYPE_CHECKING:
    from walras.kube.api import API

Dial = Callable[[str, Object, int], Awaitable[Streams]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Calls of one cluster that are under way, and those that wait for one of them to end.
CALLS_MAX: Final = 16
WAITING_MAX: Final = 256
LOOKUPS_MAX: Final = 4
SERVICES: Final = "services"
_MAPPED: Final = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether the address is everybody's to reach: not of this machine nor of somebody's network."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is not None:
            return is_public(inner)
        if address in _MAPPED:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address.is_global and not address.is_multicast and not address.is_reserved


def is_of_this_machine(address: Address) -> bool:
    """Whether packets to it would not leave this machine: one of its sockets can have the address."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


class Reach:
    """Asks webhooks. `dial` connects to a port of a pod; without it no Service can be reached.

    `networks` are those that the operator lets URLs lead to beside public addresses; `own_ports` are the
    ports of this server, where no URL may lead whatever its address.
    """

    def __init__(
        self,
        api: API,
        dial: Dial | None = None,
        networks: Iterable[Network] = (),
        own_ports: Iterable[int] = (),
    ) -> None:
        self._api = api
        self.dial = dial
        self.networks = tuple(networks)
        self.own_ports = frozenset(own_ports)
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._waiting: Counter[str] = Counter()
        self._lookups: ThreadPoolExecutor | None = None

    async def ask(self, cluster: str, client: Mapping[str, Any], body: bytes, timeout_s: float) -> bytes:
        """What a clientConfig's webhook answers. Raises CalloutFailed, and NotFound where the cluster went
        while this waited: the next one of its name has Services too."""
        if self._waiting[cluster] >= WAITING_MAX:
            raise CalloutFailed(f"more than {WAITING_MAX} calls to webhooks of this cluster wait already")
        self._waiting[cluster] += 1
        still = self._api.hold_to(cluster)
        slot = self._slots.setdefault(cluster, asyncio.Semaphore(CALLS_MAX))
        try:
            async with asyncio.timeout(timeout_s):
                async with slot:
                    still()
                    return await self._post(cluster, client, body)
        except TimeoutError:
            raise CalloutFailed("context deadline exceeded") from None
        except (OSError, EOFError) as error:
            raise CalloutFailed(str(error) or type(error).__name__) from None
        except ServiceUnavailable as error:
            raise CalloutFailed(error.message) from None
        finally:
            self._waiting[cluster] -= 1
            if not self._waiting[cluster]:
                del self._waiting[cluster]
                self._slots.pop(cluster, None)

    async def _post(self, cluster: str, client: Mapping[str, Any], body: bytes) -> bytes:
        tls = trust(client.get("caBundle") or "")
        service = client.get("service")
        if service is not None:
            host = f"{service.get('name')}.{service.get('namespace')}.svc:{service.get('port') or 443}"
            streams = await self._to_service(cluster, service)
            return await post(streams, tls, host, service.get("path") or "/", body)
        parts = urlsplit(str(client.get("url") or ""))
        if parts.scheme != "https" or not parts.hostname:
            raise CalloutFailed("the URL of a webhook must begin with https://")
        port = parts.port or 443
        streams = await self._to_host(parts.hostname, port)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        return await post(streams, tls, f"{parts.hostname}:{port}", path, body)

    # A Service of the cluster

    async def _to_service(self, cluster: str, reference: Mapping[str, Any]) -> Streams:
        namespace, name = str(reference.get("namespace")), str(reference.get("name"))
        service = self._api.find(cluster, SERVICES, namespace, name)
        if service is None:
            raise CalloutFailed(f'service "{name}" not found')
        port = int(reference.get("port") or 443)
        pod, number = self._endpoint(cluster, service, port)
        if self.dial is None:
            raise CalloutFailed(f'no runtime is connected that could reach service "{name}"')
        return await self.dial(cluster, pod, number)

    def _endpoint(self, cluster: str, service: Object, port: int) -> tuple[Object, int]:
        """A pod behind the service that is ready, and its port."""
        spec, metadata = service.get("spec") or {}, service["metadata"]
        name = metadata["name"]
        declared = next((each for each in spec.get("ports") or () if each.get("port") == port), None)
        if declared is None:
            raise CalloutFailed(f'service "{name}" has no port {port}')
        if spec.get("type") == "ExternalName" or not spec.get("selector"):
            why = "only the pods that a Service selects can be reached from here"
            raise CalloutFailed(f'service "{name}" selects no pods; {why}')
        selector = from_label_selector({"matchLabels": spec["selector"]})
        for pod in self._api.list(cluster, PODS, metadata["namespace"]):
            if not selector.matches(pod["metadata"].get("labels") or {}) or not _serves(pod):
                continue
            number = _port_of(pod, declared.get("targetPort") or port)
            if number is not None:
                return pod, number
        raise CalloutFailed(f'no endpoints available for service "{name}"')

    # A URL

    async def _to_host(self, host: str, port: int) -> Streams:
        """A connection to an address that was looked up once, and checked."""
        address = self._allowed(host, port, await self._addresses(host, port))
        try:
            return await asyncio.open_connection(str(address), port, limit=HEAD_BYTES_MAX)
        except OSError as error:
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            where = f"[{address}]" if address.version == 6 else str(address)
            raise CalloutFailed(f"dial tcp {where}:{port}: connect: {why}") from None

    async def _addresses(self, host: str, port: int) -> list[Address]:
        """Looked up in threads of their own, so that slow names hold up nothing but webhooks."""
        if self._lookups is None:
            self._lookups = ThreadPoolExecutor(LOOKUPS_MAX, "webhook-names")
        lookup = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._lookups, lookup)
        except (socket.gaierror, UnicodeError) as error:
            raise CalloutFailed(f"lookup {host}: {error}") from None
        # A scope is of a link, and of no use anywhere else.
        return [ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in rows]

    def _allowed(self, host: str, port: int, found: list[Address]) -> Address:
        """The first of a host's addresses. Raises CalloutFailed if any of them is out of reach."""
        for address in found:
            here = is_of_this_machine(address)
            if here and port in self.own_ports:
                raise CalloutFailed(
                    f"{host} port {port} is this API server itself, which webhooks cannot be on"
                )
            if any(address in network for network in self.networks):
                continue
            if here or not is_public(address):
                why = "webhooks may be at public addresses and, as a service, in pods of their own cluster"
                raise CalloutFailed(f"{host} is at {address}, which is not a public address; {why}")
        return found[0]


def shown_url(client: Mapping[str, Any], timeout_s: int) -> str:
    """Where a clientConfig leads, as failures tell it."""
    service = client.get("service")
    if service is None:
        base = str(client.get("url"))
    else:
        port = service.get("port") or 443
        path = service.get("path") or ""
        base = f"https://{service.get('name')}.{service.get('namespace')}.svc:{port}{path}"
    return f"{base}?timeout={timeout_s}s"


def _serves(pod: Object) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _port_of(pod: Object, target: int | str) -> int | None:
    if isinstance(target, int):
        return target
    if target.isdigit():
        return int(target)
    ports = (port for each in pod["spec"].get("containers") or () for port in each.get("ports") or ())
    return next((int(port["containerPort"]) for port in ports if port.get("name") == target), None)

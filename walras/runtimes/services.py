"""What the parts of the kubelet share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from walras.core.clock import Clock
from walras.core.errors import NotFound
from walras.kube.access.accounts import Accounts, node_of
from walras.kube.access.mounting import DEFAULT
from walras.kube.admission.small import RUNTIME_CLASSES
from walras.kube.api import API
from walras.kube.objects import ACCOUNTS
from walras.runtimes import servicevars
from walras.runtimes.base import Runtime
from walras.runtimes.environment import ConfigError, Directories
from walras.runtimes.logs import LogStore
from walras.runtimes.network.names import API_PORT
from walras.runtimes.network.networks import API_ADDRESS, Networks
from walras.runtimes.pressure import Disk
from walras.runtimes.rooms import Rooms
from walras.runtimes.slots import Slots
from walras.runtimes.volumes import CLAIMS, Places
from walras.tenants.claims.pod import RESOURCE_CLAIMS
from walras.tenants.objects import SERVICES

Object = dict[str, Any]
COMPONENT = "kubelet"
PROBES_MAX = 8


class Recorder(Protocol):
    """What writes Events; see walras.tenants.events."""

    def event(
        self, cluster: str, about: Object, type_: str, reason: str, message: str, *, component: str = ...
    ) -> None: ...


class Configs:
    """Wakes pods that wait for a ConfigMap, a Secret, a claim or a service account of their namespace."""

    RESOURCES = ("configmaps", "secrets", CLAIMS, ACCOUNTS, RESOURCE_CLAIMS)

    def __init__(self, api: API) -> None:
        self._api = api
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}

    def find(self, cluster: str, namespace: str, resource: str, name: str) -> Mapping[str, Any] | None:
        return self._api.find(cluster, resource, namespace, name)

    def wait(self, cluster: str, namespace: str) -> asyncio.Event:
        """Set at the next change of any of them; `forget` it in the end."""
        event = asyncio.Event()
        self._waiting.setdefault((cluster, namespace), set()).add(event)
        return event

    def forget(self, cluster: str, namespace: str, event: asyncio.Event) -> None:
        waiting = self._waiting.get((cluster, namespace), set())
        waiting.discard(event)
        if not waiting:
            self._waiting.pop((cluster, namespace), None)

    def changed(self, cluster: str, namespace: str) -> None:
        for event in self._waiting.get((cluster, namespace), ()):
            event.set()


@dataclass(frozen=True)
class Services:
    """`sleep` is asyncio's, but in tests."""

    api: API
    runtime: Runtime
    clock: Clock
    recorder: Recorder
    logs: LogStore
    places: Places
    configs: Configs
    disk: Disk
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)
    accounts: Accounts | None = None
    # Of a card's MPS daemon: its pipes, and the shared memory that goes with it.
    mps: Directories | None = None
    networks: Networks | None = None

    # Pods that wait until they can be resized.
    rooms: Rooms = field(default_factory=Rooms)

    # Programs of probes that run in an agent's containers at a time.
    probes: Slots = field(default_factory=lambda: Slots(PROBES_MAX))

    def token(self, cluster: str, pod: Object, audience: str, lifetime_s: int) -> str:
        """A token of the pod's service account, void without the pod. Raises ConfigError."""
        namespace = str(pod["metadata"]["namespace"])
        name = str(pod["spec"].get("serviceAccountName") or DEFAULT)
        account = self.api.find(cluster, ACCOUNTS, namespace, name)
        if self.accounts is None or account is None:
            raise ConfigError(f'failed to fetch token: serviceaccounts "{name}" not found')
        audiences = (audience,) if audience else ()
        node = node_of(self.api, cluster, pod)
        return self.accounts.issue(
            cluster, account, audiences=audiences, lifetime_s=lifetime_s, bound=pod, node=node
        )

    def variables(self, cluster: str, pod: Object) -> dict[str, str]:
        """Variables by which the programs of a pod with a network find Services."""
        found = self.api.list(cluster, SERVICES, pod["metadata"]["namespace"])
        enabled = pod["spec"].get("enableServiceLinks") is not False
        return servicevars.variables(found, (str(API_ADDRESS), API_PORT), enabled=enabled)

    def handler(self, cluster: str, pod: Object) -> str:
        """What the pod's RuntimeClass calls the runtime of its pods; "" without one. Raises NotFound."""
        name = str(pod["spec"].get("runtimeClassName") or "")
        if not name:
            return ""
        found = self.api.find(cluster, RUNTIME_CLASSES, "", name)
        if found is None:
            raise NotFound(f'{RUNTIME_CLASSES} "{name}" not found')
        return str(found["handler"])

    def event(self, cluster: str, about: Object, type_: str, reason: str, message: str) -> None:
        self.recorder.event(cluster, about, type_, reason, message, component=COMPONENT)

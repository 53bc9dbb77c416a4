"""All agents' control planes together: controllers, scheduler, tokens and Events over one work queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from walras.core.clock import Clock, Ids
from walras.kube.access.accounts import Accounts
from walras.kube.access.certificates import Authority
from walras.kube.access.keys import SigningKey
from walras.kube.api import API
from walras.tenants.account_tokens import AccountTokenController
from walras.tenants.agents import AgentController
from walras.tenants.aggregation import AggregationController
from walras.tenants.certificates import CertificateController
from walras.tenants.claims.reservations import ReservationController
from walras.tenants.claims.templates import ClaimTemplateController
from walras.tenants.controller import Manager
from walras.tenants.cronjobs import CronJobController
from walras.tenants.daemonsets import DaemonSetController
from walras.tenants.dependents import Dependents
from walras.tenants.deployments import DeploymentController
from walras.tenants.disruption import DisruptionController
from walras.tenants.endpoints import EndpointsController
from walras.tenants.events import EventExpiry, Recorder
from walras.tenants.fleet import prepare_fleet
from walras.tenants.furniture import furniture
from walras.tenants.gc import GarbageCollector
from walras.tenants.hibernation import Hibernator
from walras.tenants.jobs import JobController
from walras.tenants.namespaces import NamespaceController
from walras.tenants.nodes import NodeTaintController
from walras.tenants.pods import PodCollector
from walras.tenants.policies import PolicyController
from walras.tenants.protection import ProtectionController
from walras.tenants.quotas import QuotaController
from walras.tenants.replicasets import REPLICATION_CONTROLLER, ReplicaSetController
from walras.tenants.scheduler import Scheduler
from walras.tenants.statefulsets import StatefulSetController
from walras.tenants.tokens import TokenAuthenticator
from walras.tenants.virtual.instances import InstanceController
from walras.tenants.virtual.machines import MachineController
from walras.tenants.volumes import ClaimController


class Watcher(Protocol):
    def watch(self) -> list[Callable[[], None]]:
        """Subscribes to what concerns it; returns the calls that unsubscribe."""


class ControlPlanes:
    """Everything that acts in agents' clusters by itself. It has no state: all of it is in the API.

    `endpoint` is the server's URL as clients reach it, `ca_pem` the certificate by which they know it.
    `signing_key` signs the tokens of service accounts; without one they last as long as the process.
    `authority` signs client certificates; without one nobody does.
    `manager` runs the controllers, and may run others' (`manager.add(reconciler, Key(...))`).
    """

    def __init__(
        self,
        api: API,
        clock: Clock,
        ids: Ids,
        *,
        endpoint: str,
        ca_pem: str,
        signing_key: SigningKey | None = None,
        authority: Authority | None = None,
    ) -> None:
        self._api = api
        self._ids = ids
        self._ca_pem = ca_pem
        api.share(furniture(ca_pem))
        self.manager = Manager(clock, api.rouse)
        self.dependents = Dependents(api)
        self.recorder = Recorder(api, clock, self.manager)
        self.authenticator = TokenAuthenticator(api)
        self.accounts = Accounts(api, signing_key or SigningKey.generate())
        self.operator_token = ""
        manager, recorder, dependents = self.manager, self.recorder, self.dependents
        workloads = (api, clock, manager, recorder, dependents)
        # These two learn of every change from the index.
        GarbageCollector(api, manager, dependents)
        namespaces = NamespaceController(api, clock, manager, dependents, ca_pem)
        self.agents = AgentController(api, clock, ids, manager, endpoint=endpoint, ca_pem=ca_pem)
        self._watchers: Sequence[Watcher] = (
            self.authenticator,
            self.agents,
            namespaces,
            Scheduler(api, clock, manager, recorder),
            PodCollector(api, clock, manager),
            NodeTaintController(api, manager),
            JobController(*workloads),
            CronJobController(*workloads),
            ReplicaSetController(*workloads),
            ReplicaSetController(*workloads, REPLICATION_CONTROLLER),
            DeploymentController(*workloads),
            StatefulSetController(*workloads),
            DaemonSetController(*workloads),
            InstanceController(*workloads),
            MachineController(api, clock, manager, recorder),
            EndpointsController(api, manager),
            ClaimController(api, manager),
            ClaimTemplateController(api, manager, recorder),
            ReservationController(api, manager),
            AggregationController(api, manager),
            AccountTokenController(api, manager, self.accounts, ca_pem),
            ProtectionController(api, manager),
            DisruptionController(api, clock, manager),
            QuotaController(api, manager, dependents),
            PolicyController(api, manager),
            EventExpiry(api, clock, manager),
            Hibernator(api, clock, manager),
            *([CertificateController(api, clock, manager, authority)] if authority else ()),
        )
        self._unsubscribe: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Makes the fleet on the first start; looks at everything that is there, then at every change."""
        self.operator_token = await prepare_fleet(self._api, self._ids, self._ca_pem)
        self.dependents.start()
        for watcher in self._watchers:
            self._unsubscribe += watcher.watch()
        self.manager.start()

    async def settle(self) -> None:
        """Returns when the controllers have nothing left to do at this moment."""
        await self.manager.settle()

    async def stop(self) -> None:
        """Ends after the work that is under way."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe.clear()
        self.dependents.stop()
        await self.manager.stop()

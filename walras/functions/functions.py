"""Functions of all clusters together: controllers, autoscaler and activator, over the work queue of all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from walras.core.clock import Clock
from walras.functions.activator import Activator, Identify
from walras.functions.backends import Backends, Dial
from walras.functions.configurations import ConfigurationController
from walras.functions.domains import Domains
from walras.functions.hosts import Domain
from walras.functions.listener import Listener
from walras.functions.revisions import RevisionController
from walras.functions.routes import RouteController
from walras.functions.routing import Routing
from walras.functions.scaler import Scaler
from walras.functions.services import ServiceController
from walras.kube.api import API
from walras.kube.serve.fair import Fair
from walras.tenants.controller import Manager
from walras.tenants.dependents import Dependents
from walras.tenants.events import Recorder


class Functions:
    """`dial` connects to a port of a pod; `identify` knows the tokens of callers; `own_host` is where the
    server is. `app` is what the listener at the domain's port serves, and `listener` the one at its port for
    HTTP/2, in turns with what else `fair` shares the server's time between."""

    def __init__(
        self,
        api: API,
        clock: Clock,
        manager: Manager,
        recorder: Recorder,
        dependents: Dependents,
        domain: Domain,
        dial: Dial,
        identify: Identify,
        fair: Fair | None = None,
        *,
        own_host: str = "",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.backends = Backends(api, clock, dial, sleep=sleep)
        domains = Domains(api, clock, manager, recorder, domain, own_host)
        routing = Routing(api, domain, domains)
        scaler = Scaler(api, clock, manager, self.backends)
        self.backends.began = scaler.wake
        revisions = RevisionController(api, clock, manager, recorder, dependents, self.backends)
        # Backends last: they tell the controller of revisions of the pods that are there.
        self._watchers = (
            ServiceController(api, clock, manager, recorder),
            ConfigurationController(api, clock, manager, recorder, dependents),
            RouteController(api, clock, manager, domain),
            domains,
            routing,
            revisions,
            self.backends,
        )
        fair = fair or Fair()
        self.app = Activator(api, routing, self.backends, identify, fair, domain.http2_port)
        self.listener = Listener(self.app, fair)
        self._unsubscribe: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Looks at everything that is there, then at every change."""
        for watcher in self._watchers:
            self._unsubscribe += watcher.watch()

    async def stop(self) -> None:
        """Instances go with their nodes, or stay for the next start."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe.clear()
        await self.backends.stop()

"""Functions as a part of this server: made over its other parts, asked from outside, asked by pods."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

from walras.core.clock import Clock
from walras.functions.functions import Functions
from walras.functions.hosts import Domain
from walras.functions.inside import InsideFunctions
from walras.functions.listener import SESSIONS_MAX, Listener
from walras.kube.api import API
from walras.kube.context import Identity
from walras.kube.serve.credentials import Credentials
from walras.kube.serve.fair import Fair
from walras.kube.serve.inside import Insiders
from walras.kube.serve.server import serve
from walras.runtimes.kubelet import Kubelet
from walras.runtimes.network.networks import Networks
from walras.tenants.planes import ControlPlanes


def compose(
    api: API,
    clock: Clock,
    planes: ControlPlanes,
    domain: Domain,
    kubelet: Kubelet,
    fair: Fair,
    host: str,
) -> Functions:
    """Functions of all clusters, not started yet; `host` is where the server listens."""
    credentials = Credentials(planes.authenticator, planes.accounts)
    return Functions(
        api,
        clock,
        planes.manager,
        planes.recorder,
        planes.dependents,
        domain,
        kubelet.access.dial,
        partial(_identify, credentials),
        fair,
        own_host=host,
    )


async def listen(functions: Functions, host: str, domain: Domain, stack: AsyncExitStack) -> None:
    """Serves callers from outside until the stack is closed."""
    listening = await serve(functions.app, host, domain.port)
    stack.push_async_callback(listening.close)
    await functions.listener.start(host, domain.http2_port)
    stack.push_async_callback(functions.listener.close)


async def take_in(networks: Networks, functions: Functions, stack: AsyncExitStack) -> None:
    """Lets pods reach the functions of their clusters by the networks."""
    inside = InsideFunctions(functions.app)
    # All come from the loopback device; how many an agent has is bounded before.
    listener = Listener(inside, functions.listener.fair, SESSIONS_MAX)
    await listener.start("127.0.0.1", 0)
    stack.push_async_callback(listener.close)
    callers = Insiders(inside, http2_port=listener.port)
    stack.push_async_callback(callers.close)
    networks.asked = callers.connected


async def _identify(credentials: Credentials, token: str) -> Identity | None:
    """Whose a token is; one that was not seen before is verified first."""
    if credentials.accounts.is_news(token) and not await credentials.accounts.learn(token):
        return None
    return credentials.identify(token)

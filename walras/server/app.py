"""The composition root: every part of Walras in one process, started in order and stopped in reverse."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from walras.core.errors import StorageError
from walras.exchange import supply
from walras.exchange.demand import FLEET
from walras.exchange.exchange import Exchange
from walras.exchange.health import publish
from walras.exchange.views import Views
from walras.functions.functions import Functions
from walras.functions.hosts import Domain
from walras.kube.admission.reach import Reach
from walras.kube.api import API
from walras.kube.serve.app import Application
from walras.kube.serve.auditlog import AuditLog
from walras.kube.serve.certified import listen
from walras.kube.serve.fair import Fair
from walras.kube.serve.inside import InsideAPI, Insiders
from walras.kube.serve.server import serve as serve_http
from walras.kube.store.sqlite import SqliteStore
from walras.kube.verbs import Verbs
from walras.runtimes.handlers import offers, runtimes
from walras.runtimes.kubelet import Kubelet
from walras.runtimes.network.networks import Networks
from walras.server import functions, log, memory, tls
from walras.server.options import Options
from walras.server.ports import free_port, functions_ports
from walras.server.system import SystemClock, SystemIds
from walras.tenants.planes import ControlPlanes
from walras.tenants.quota import object_quota
from walras.tenants.tokens import kubeconfig
from walras.tenants.virtual.acts import Acts

OPERATOR_KUBECONFIG: Final = "operator.kubeconfig"
# How long running pods get to checkpoint when the server is told to stop.
DRAIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Ready:
    """How to reach a server that accepts requests."""

    url: str
    ca_file: Path
    kubeconfig: Path
    data: Path
    devices: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    # The URL for callers with client certificates; "" where none are taken.
    certificates: str = ""
    # Where functions are, such as "functions.localhost:7444".
    functions: str = ""
    # Where gRPC to them is spoken, such as "functions.localhost:7445".
    functions_http2: str = ""


async def serve(options: Options, ready: Callable[[Ready], None], stop: asyncio.Event) -> None:
    """Run until `stop` is set, then drain. Raises WalrasError for what the user can mend: a port or data
    folder in use, a full disk, devices that cannot be had."""
    log.configure()
    found = supply.detect(options.gpus, data=options.data, by_mps=options.parts == "mps")
    port = free_port(options.host, options.port)
    async with AsyncExitStack() as stack:
        if found.machine is not None:
            stack.callback(found.machine.close)
        try:
            ready(await _start(options, port, found, stack))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StorageError(
                f"the disk that holds {options.data} is full; free some space and start again"
            ) from error
        await stop.wait()


async def _start(options: Options, port: int, found: supply.Supply, stack: AsyncExitStack) -> Ready:
    clock, ids = SystemClock(), SystemIds()
    try:
        options.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = SqliteStore(options.data / "walras.db")
        stack.callback(store.close)
        certificates = tls.ensure(options.data / "tls", options.host, clock.now_ms())
        signing_key = tls.signing_key(options.data / "tls")
        authority = tls.client_authority(options.data / "tls", clock.now_ms())
    except OSError as error:
        raise StorageError(
            f"the data folder {options.data} cannot be used: {error.strerror or error}"
        ) from error
    url = f"https://{_address(options.host)}:{port}"

    offered = offers(options.data, options.engine)
    runtime = runtimes(options.data, options.runtime, offered)
    handlers = {each.handler: each.overhead for each in offered if each.make is not None}
    api = API(store, clock, ids, handlers=handlers, server=(options.host, port))
    planes = ControlPlanes(
        api,
        clock,
        ids,
        endpoint=url,
        ca_pem=certificates.ca_pem,
        signing_key=signing_key,
        authority=authority,
    )
    await stack.enter_async_context(_running(planes))
    operator_file = _write_kubeconfig(options.data, url, certificates.ca_pem, planes.operator_token)
    kubelet = Kubelet(
        api,
        runtime,
        clock,
        planes.recorder,
        options.data,
        accounts=planes.accounts,
        mps=found.machine.mps_directories if found.machine is not None else None,
        networks=runtime.shares.networks,
    )
    planes.agents.forget = kubelet.forget_agent
    exchange = Exchange(
        api,
        store,
        clock,
        ids,
        manager=planes.manager,
        recorder=planes.recorder,
        runtime=kubelet,
        supply=found,
    )
    fair = Fair()
    domain = Domain(options.functions_domain, *functions_ports(options, port))
    serving = functions.compose(api, clock, planes, domain, kubelet, fair, options.host)
    await stack.enter_async_context(_running(serving))
    audit = _audit_log(options.audit_log, stack)
    own_ports = (port, domain.port, domain.http2_port)
    reach = api.admission.webhooks.reach = Reach(
        api, kubelet.access.dial, options.webhook_networks, own_ports
    )
    verbs = Verbs(api, object_quota(api))
    application = Application(
        verbs,
        planes.authenticator,
        clock,
        accounts=planes.accounts,
        pods=kubelet.access,
        audit=audit,
        extra=Views(api, exchange, store, clock, verbs),
        fair=fair,
    )
    application.interactive.machines = Acts(api, clock, planes.dependents, kubelet.access)
    await _take_in(runtime.shares.networks, application, serving, certificates, stack)
    await publish(api, found)
    await exchange.prepare()
    await kubelet.start()
    stack.push_async_callback(kubelet.stop, DRAIN_S)
    await stack.enter_async_context(_running(exchange))
    running = await serve_http(application, options.host, port, certificates.cert_file, certificates.key_file)
    stack.push_async_callback(running.close)
    await functions.listen(serving, options.host, domain, stack)
    for_certificates = ""
    if options.certificates is not None:
        host, at = options.certificates
        cert, key = certificates.cert_file, certificates.key_file
        listener = await listen(application, host, at, cert=cert, key=key, ca_pem=authority.certificate)
        stack.push_async_callback(listener.close)
        reach.own_ports |= {listener.port}
        for_certificates = f"https://{_address(listener.host)}:{listener.port}"
    stack.callback(memory.settle())
    return Ready(
        url,
        certificates.ca_file,
        operator_file,
        options.data,
        tuple(_shown(device, found) for device in found.devices),
        (*found.notes, *runtime.warnings),
        for_certificates,
        f"{domain.name}:{domain.port}",
        f"{domain.name}:{domain.http2_port}",
    )


def _audit_log(path: Path | None, stack: AsyncExitStack) -> AuditLog | None:
    if path is None:
        return None
    try:
        found = AuditLog(path)
    except OSError as error:
        raise StorageError(f"the audit log {path} cannot be written: {error.strerror or error}") from error
    stack.callback(found.close)
    return found


async def _take_in(
    networks: Networks | None,
    app: Application,
    serving: Functions,
    certificates: tls.Certificates,
    stack: AsyncExitStack,
) -> None:
    """Lets pods reach the API and the functions of their clusters by the networks."""
    if networks is not None:
        insiders = Insiders(InsideAPI(app), certificates.cert_file, certificates.key_file)
        stack.push_async_callback(insiders.close)
        networks.connected = insiders.connected
        await functions.take_in(networks, serving, stack)


@asynccontextmanager
async def _running(part: Any) -> AsyncIterator[None]:
    await part.start()
    try:
        yield
    finally:
        await part.stop()


def _write_kubeconfig(data: Path, url: str, ca_pem: str, token: str) -> Path:
    path = data / OPERATOR_KUBECONFIG
    partial = path.with_suffix(".partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(kubeconfig(url, ca_pem, FLEET, token))
    partial.replace(path)
    return path


def _address(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104  compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _shown(device: Any, found: supply.Supply) -> dict[str, Any]:
    return {
        "id": device.id,
        "model": device.model,
        "memory_mib": device.memory_mib,
        "enforcement": found.enforcement,
    }

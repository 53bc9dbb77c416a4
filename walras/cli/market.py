"""`walras bids` and `walras leases`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import click

from walras.cli.client import CLUSTER_ANNOTATION, WALRAS, Client
from walras.cli.options import EVERY, namespace_option, watch_option, with_client, with_scope
from walras.cli.output import Column, Object, age, dig, emit, output_option, show, until
from walras.cli.watching import follow_objects


def agent_of(item: Object) -> str:
    """The logical cluster that an item of a list across clusters is in."""
    annotations = item["metadata"].get("annotations") or {}
    return str(annotations.get(CLUSTER_ANNOTATION, ""))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _of_devices(field: str) -> Callable[[Object], str]:
    def text(item: Object) -> str:
        return ",".join(str(device.get(field, "")) for device in dig(item, "spec.devices") or [])

    return text


def _age(item: Object) -> str:
    return age(dig(item, "metadata.creationTimestamp"), _now_ms())


def _ends(item: Object) -> str:
    stamp = dig(item, "status.drainsAt") or dig(item, "spec.end")
    return "" if dig(item, "status.phase") == "Ended" else until(stamp, _now_ms())


def asks(bid: Object) -> str:
    """What a bid's packages ask for, "|" between them: "250m" is a quarter of a device, "2x1000m" two whole
    ones, "2-4x1000m" two to four, "1g.10gb" a MIG instance."""
    return "|".join(_package(package) for package in dig(bid, "spec.packages") or [])


def _package(package: Object) -> str:
    each = package.get("migProfile") or f"{package.get('milliGPU', 1000)}m"
    most = package.get("devices", 1)
    least = package.get("devicesMin", most)
    count = str(most) if least == most else f"{least}-{most}"
    return each if count == "1" else f"{count}x{each}"


def max_price(bid: Object) -> str:
    """The most that each of a bid's packages pays a GPU-hour."""
    packages: list[Object] = dig(bid, "spec.packages") or []
    return "|".join(str(package.get("maxPrice", "")) for package in packages)


AGENT: Final = Column("AGENT", agent_of)
BIDS: Final = (
    Column("NAMESPACE", "metadata.namespace"),
    Column("NAME", "metadata.name"),
    Column("CLASS", "spec.class"),
    Column("GPUS", asks),
    Column("MAX", max_price),
    Column("PHASE", "status.phase"),
    Column("REASON", "status.explanation.reason"),
    Column("CLEARING", "status.explanation.clearingPrice", wide=True),
    Column("WINNING", "status.explanation.winningPrice", wide=True),
    Column("POSITION", "status.explanation.position", wide=True),
    Column("LEASE", "status.lease"),
    Column("AGE", _age, runs=True),
)
LEASES: Final = (
    Column("NAMESPACE", "metadata.namespace"),
    Column("NAME", "metadata.name"),
    Column("PHASE", "status.phase"),
    Column("CLASS", "spec.class"),
    Column("PRICE", "spec.price"),
    Column("DEVICES", _of_devices("device")),
    Column("MILLIGPU", _of_devices("milliGPU")),
    Column("NODE", "status.node"),
    Column("CHARGED", "status.charged", runs=True),
    Column("ENDS", _ends, runs=True),
    Column("BID", "spec.bid", wide=True),
    Column("POD", "status.pod", wide=True),
    Column("MIG", _of_devices("mig"), wide=True),
    Column("ENFORCEMENT", _of_devices("enforcement"), wide=True),
    Column("AGE", _age, runs=True),
)


def path_of(resource: str, cluster: str, namespace: str) -> str:
    """Where the list of one of Walras' kinds is; across clusters there is no path for one namespace."""
    within = f"namespaces/{namespace}/" if namespace and cluster != EVERY else ""
    return f"{WALRAS}/{within}{resource}"


def listed(client: Client, resource: str, cluster: str, namespace: str) -> Object:
    """The list of one of Walras' kinds, of one agent or of all ("*")."""
    found = client.get(path_of(resource, cluster, namespace), cluster=cluster)
    found["items"] = [item for item in found["items"] if _is_in(item, namespace)]
    return found


def _is_in(item: Object, namespace: str) -> bool:
    return not namespace or item["metadata"].get("namespace") == namespace


def _print(
    client: Client,
    resource: str,
    columns: Sequence[Column],
    *,
    cluster: str,
    namespace: str,
    watch: bool,
    output: str,
) -> None:
    if cluster == EVERY:
        columns = (AGENT, *columns)
    if watch:
        path = path_of(resource, cluster, namespace)
        follow_objects(
            client, path, columns, output, cluster=cluster, wanted=lambda item: _is_in(item, namespace)
        )
        return
    found = listed(client, resource, cluster, namespace)
    if emit(found, output):
        return
    if found["items"]:
        show(columns, found["items"], output)
    else:
        click.echo(f"No {resource.replace('gpuleases', 'leases')} found.", err=True)


@click.command()
@with_client
@with_scope
@namespace_option
@watch_option
@output_option
def bids(client: Client, cluster: str, namespace: str, watch: bool, output: str) -> None:
    """List what agents would pay for GPU time, and what became of it."""
    _print(client, "bids", BIDS, cluster=cluster, namespace=namespace, watch=watch, output=output)


@click.command()
@with_client
@with_scope
@namespace_option
@watch_option
@output_option
def leases(client: Client, cluster: str, namespace: str, watch: bool, output: str) -> None:
    """List who holds which share of which device, at what price, until when."""
    _print(client, "gpuleases", LEASES, cluster=cluster, namespace=namespace, watch=watch, output=output)

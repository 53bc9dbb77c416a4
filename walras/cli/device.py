"""`walras device`."""

from __future__ import annotations

import time
from typing import Final

import click

from walras.cli.client import Client
from walras.cli.options import with_operator
from walras.cli.output import Column, Object, age, dig, emit, output_option, show
from walras.cli.target import FLEET
from walras.core.errors import NotFound

SLICES: Final = "apis/resource.k8s.io/v1/resourceslices"
_EFFECTS: Final = ("NoSchedule", "NoExecute")


@click.group()
def device() -> None:
    """See which devices are on the market, and return those that failed. For the operator."""


def _attribute(row: Object, name: str) -> str:
    value = dig(row, f"attributes.{name}") or {}
    return str(next(iter(value.values()), ""))


def _taints(row: Object) -> list[Object]:
    return [taint for taint in row.get("taints") or [] if taint.get("effect") in _EFFECTS]


def _state(row: Object) -> str:
    return "Off" if _taints(row) else "Sold"


def _why(row: Object) -> str:
    return ",".join(str(taint.get("value") or taint["key"]) for taint in _taints(row))


def _since(row: Object) -> str:
    now_ms = time.time_ns() // 1_000_000
    return ",".join(age(taint.get("timeAdded"), now_ms) for taint in _taints(row))


COLUMNS: Final = (
    Column("DEVICE", "id"),
    Column("MODEL", lambda row: _attribute(row, "productName")),
    Column("MEMORY", "capacity.memory.value"),
    Column("MARKET", _state),
    Column("REASON", _why),
    Column("SINCE", _since),
    Column("UUID", lambda row: _attribute(row, "uuid"), wide=True),
)


def _whole(client: Client) -> list[tuple[Object, Object]]:
    """Every whole device with its slice, in the order of the fleet."""
    found = []
    for each in client.get(SLICES, cluster=FLEET)["items"]:
        for row in dig(each, "spec.devices") or []:
            if _attribute(row, "type") != "mig":
                found.append((each, {"id": f"{dig(each, 'spec.nodeName')}/{row['name']}", **row}))
    return found


@device.command("list")
@with_operator
@output_option
def list_(client: Client, output: str) -> None:
    """List the devices, and why those that are off the market are so."""
    rows = [row for _, row in _whole(client)]
    if not emit({"devices": rows}, output):
        show(COLUMNS, rows, output)


@device.command("return")
@with_operator
@click.argument("name", metavar="DEVICE")
def return_(client: Client, name: str) -> None:
    """Sell a device again, such as local/gpu-0: take away the taints that keep it off the market."""
    for found, row in _whole(client):
        if row["id"] != name:
            continue
        if not _taints(row):
            click.echo(f'"{name}" is on the market already.')
            return
        for each in found["spec"]["devices"]:
            if each["name"] == row["name"]:
                each["taints"] = [taint for taint in each["taints"] if taint not in _taints(row)]
        client.put(f"{SLICES}/{found['metadata']['name']}", found, cluster=FLEET)
        click.echo(
            f'"{name}" is on the market again; if what is wrong with it is not mended, it fails again.'
        )
        return
    known = ", ".join(row["id"] for _, row in _whole(client)) or "none"
    raise NotFound(f'there is no device "{name}"; there are {known}')

"""`walras up`."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import click
import msgspec
import uvloop

from walras.cli.options import data_option
from walras.cli.target import default_data
from walras.kube.admission.reach import Network
from walras.runtimes.handlers import HANDLERS, PROCESS
from walras.server.app import Ready, serve
from walras.server.options import Options


def parse_listen(value: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT", "[IPv6]:PORT" or ":PORT"; port 0 is any free one. Raises ValueError."""
    host, colon, port = value.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 <= int(port) < 65536:
        raise ValueError(f'"{value}" is not HOST:PORT such as 127.0.0.1:7443')
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f'"{value}": an IPv6 address goes in brackets, such as [::1]:7443')
    return host.strip("[]") or "127.0.0.1", int(port)


def _listen(_: click.Context, __: click.Parameter, value: str) -> tuple[str, int]:
    try:
        return parse_listen(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _optional(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    return None if value is None else _listen(context, parameter, value)


def _networks(_: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(value) for value in values)
    except ValueError as error:
        raise click.BadParameter(f"{error}; write a network such as 10.0.0.0/8") from None


def _domain(_: click.Context, __: click.Parameter, value: str) -> str:
    label = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
    if len(value) > 100 or not re.fullmatch(rf"{label}(?:\.{label})*", value):
        raise click.BadParameter(f'"{value[:100]}" is no domain name such as functions.example.com')
    return value


def _socket(_: click.Context, __: click.Parameter, value: str | None) -> Path | None:
    if value is None:
        return None
    path = Path(value.removeprefix("unix://"))
    if not value.startswith("unix:///"):
        raise click.BadParameter(f'"{value[:100]}" is no local socket such as unix:///run/podman/podman.sock')
    return path


@click.command()
@data_option
@click.option(
    "--listen",
    default="127.0.0.1:7443",
    show_default=True,
    metavar="HOST:PORT",
    callback=_listen,
    help="Where to serve; port 0 takes a free one.",
)
@click.option(
    "--gpus",
    default="auto",
    show_default=True,
    metavar="auto|emulated:N[:MODEL][,...]|simulated:N:MODEL[,...]",
    help="This machine's NVIDIA GPUs, or emulated ones if it has none; or N emulated ones of some models; or "
    "a simulator of the driver with N cards, to try what is done with cards.",
)
@click.option(
    "--gpu-parts",
    "parts",
    type=click.Choice(["mps", "timeslice"]),
    default="mps",
    show_default=True,
    help="What keeps parts of a card apart: MPS, where it can be had, or the driver's time slices.",
)
@click.option(
    "--certificates",
    metavar="HOST:PORT",
    callback=_optional,
    help="Where to serve who shows a client certificate; off by default.",
)
@click.option(
    "--audit-log",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write who asked for what to this file, as JSON lines; ten of 100 MiB are kept.",
)
@click.option(
    "--webhook-network",
    "webhook_networks",
    multiple=True,
    metavar="CIDR",
    callback=_networks,
    help="Addresses beside public ones that the URLs of agents' webhooks may lead to; may be given often.",
)
@click.option(
    "--runtime",
    type=click.Choice(HANDLERS),
    default=PROCESS,
    show_default=True,
    help="What runs the pods that name no RuntimeClass; `walras doctor` says which there are.",
)
@click.option(
    "--engine",
    metavar="unix:///SOCKET",
    callback=_socket,
    help="The Docker or Podman that runs containers; by default the server starts a Podman for itself.",
)
@click.option(
    "--functions-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Where to serve functions, on the host of --listen; by default the next port, 0 takes a free one.",
)
@click.option(
    "--functions-http2-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Where to serve them in HTTP/2, as gRPC needs; by default the port after that, 0 takes a free one.",
)
@click.option(
    "--functions-domain",
    default="functions.localhost",
    show_default=True,
    metavar="DOMAIN",
    callback=_domain,
    help="What the host names of functions end with, which all lead to the host of --listen.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON once it is ready.")
def up(
    data: Path | None,
    listen: tuple[str, int],
    gpus: str,
    parts: str,
    certificates: tuple[str, int] | None,
    audit_log: Path | None,
    webhook_networks: tuple[Network, ...],
    runtime: str,
    engine: Path | None,
    functions_port: int | None,
    functions_http2_port: int | None,
    functions_domain: str,
    as_json: bool,
) -> None:
    """Start everything on this machine: API servers, market, ledger and runtime, in one process.

    Ctrl-C drains what runs and exits 0; a second one exits at once. Start it again on the same data and it
    goes on where it was.
    """
    host, port = listen
    chosen = (data or default_data()).expanduser().absolute()
    audit = audit_log.expanduser().absolute() if audit_log else None
    options = Options(
        data=chosen,
        host=host,
        port=port,
        gpus=gpus,
        parts=parts,
        audit_log=audit,
        certificates=certificates,
        webhook_networks=webhook_networks,
        runtime=runtime,
        functions_port=functions_port,
        functions_http2_port=functions_http2_port,
        functions_domain=functions_domain,
        engine=engine,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(options, as_json))


async def _run(options: Options, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, partial(_on_signal, stop, number))
    await serve(options, announce_json if as_json else announce, stop)


def _on_signal(stop: asyncio.Event, number: signal.Signals) -> None:
    if stop.is_set() and number is signal.SIGINT:
        os._exit(130)
    if not stop.is_set():
        with suppress(OSError):
            click.echo("Stopping; Ctrl-C again exits at once.", err=True)
    stop.set()


def announce_json(ready: Ready) -> None:
    """One line for programs."""
    line = {
        "url": ready.url,
        "ca_file": str(ready.ca_file),
        "kubeconfig": str(ready.kubeconfig),
        "data": str(ready.data),
        "devices": ready.devices,
        **({"certificates": ready.certificates} if ready.certificates else {}),
        **({"functions": ready.functions} if ready.functions else {}),
        **({"functions_http2": ready.functions_http2} if ready.functions_http2 else {}),
    }
    click.echo(msgspec.json.encode(line).decode())


def announce(ready: Ready) -> None:
    """What there is and how to go on, for people."""
    click.echo(f"\n{click.style('Walras is up', bold=True)} at {ready.url}")
    for line in [*inventory(ready.devices), *ready.notes]:
        click.echo(f"  {line}")
    if ready.certificates:
        click.echo(f"  client certificates at {ready.certificates}")
    if ready.functions:
        at_http2 = (
            f", gRPC at port {ready.functions_http2.rpartition(':')[2]}" if ready.functions_http2 else ""
        )
        click.echo(f"  functions at http://NAME.NAMESPACE.AGENT.{ready.functions}{at_http2}")
    click.echo(f"  data in {ready.data}\n\nIn another terminal:\n")
    if Path(ready.data) != default_data():
        click.echo(f"  export WALRAS_DATA={ready.data}")
    for command in (
        "walras agent create search --income 12/h --balance 10",
        "walras connect search -- kubectl get nodes",
        "walras prices -w",
    ):
        click.echo(f"  {command}")
    click.echo("\nCtrl-C stops it.")


def inventory(devices: Sequence[Mapping[str, object]]) -> list[str]:
    """A line for each kind of device, such as "2 x H100, 81559 MiB each, shares enforced: mps"."""
    kinds = Counter((device["model"], device["memory_mib"], device["enforcement"]) for device in devices)
    return [
        f"{count} x {model}, {memory} MiB each, shares enforced: {enforcement}"
        for (model, memory, enforcement), count in kinds.items()
    ]

"""`walras doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from walras.cli.client import Client
from walras.cli.options import chosen, data_option, kubeconfig_option
from walras.cli.output import Object, emit, output_option
from walras.cli.target import default_data
from walras.core.errors import NotFound, WalrasError
from walras.runtimes.checks import checks


@click.command()
@kubeconfig_option
@data_option
@output_option
def doctor(kubeconfig: Path | None, data: Path | None, output: str) -> None:
    """Say what this machine can enforce, what is missing and what to do about it."""
    found: list[Object] = [
        {"name": check.name, "ok": check.ok, "detail": check.detail, "advice": check.advice}
        for check in checks(data or default_data())
    ]
    found.append(_server(kubeconfig, data))
    if emit({"checks": found}, output):
        return
    width = max(len(check["name"]) for check in found)
    for check in found:
        mark = click.style("ok", fg="green") if check["ok"] else click.style("--", fg="yellow")
        click.echo(f"{mark}  {check['name']:<{width}}  {check['detail']}")
        if not check["ok"] and check["advice"]:
            click.echo(f"    {'':<{width}}  {check['advice']}")


def _server(kubeconfig: Path | None, data: Path | None) -> Object:
    """Whether a server answers; none running is no fault of the machine."""
    try:
        target = chosen(kubeconfig, data)
        with Client(target, timeout_s=3) as client:
            client.get("api")
    except NotFound as error:
        return {"name": "server", "ok": False, "detail": "none has run here", "advice": error.message}
    except (WalrasError, OSError) as error:
        return {"name": "server", "ok": False, "detail": "does not answer", "advice": str(error)}
    return {"name": "server", "ok": True, "detail": f"answers at {target.base}", "advice": ""}

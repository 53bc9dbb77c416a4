"""`walras explain`."""

from __future__ import annotations

import time
from typing import Any, Final

import click

from walras.cli.client import Client
from walras.cli.market import agent_of, asks, listed, max_price
from walras.cli.options import EVERY, namespace_option, with_client, with_scope
from walras.cli.output import Object, age, dig, emit, facts, output_option
from walras.core.errors import Conflict, Forbidden, NotFound

# A pod's bid has the pod's name.
_KINDS: Final = ("bid", "bids", "pod", "pods")
EVENTS_SHOWN: Final = 8


def _name(_: click.Context, __: click.Parameter, value: str) -> str:
    kind, slash, name = value.rpartition("/")
    if slash and kind not in _KINDS:
        raise click.BadParameter(f'"{value}" is not bid/NAME or pod/NAME')
    if not name:
        raise click.BadParameter("the name of the bid is missing; write bid/NAME")
    return name


@click.command()
@click.argument("bid", metavar="bid/NAME", callback=_name)
@with_client
@with_scope
@namespace_option
@output_option
def explain(client: Client, bid: str, cluster: str, namespace: str, output: str) -> None:
    """Say why a bid won or lost: what bound it, the clearing price and the price that would have won.

    A pod's bid has the pod's name, so pod/NAME works as well.
    """
    found = _find(client, bid, cluster, namespace)
    agent = agent_of(found) or cluster
    result = summary(found, agent, _events(client, found, agent))
    if not emit(result, output):
        _print(result)


def _find(client: Client, name: str, cluster: str, namespace: str) -> Object:
    """The one bid of that name. Raises NotFound, or Conflict when there are several."""
    items = listed(client, "bids", cluster, namespace)["items"]
    found: list[Object] = [item for item in items if item["metadata"]["name"] == name]
    if not found:
        whose = "any agent" if cluster == EVERY else f'agent "{cluster}"'
        raise NotFound(f'no bid "{name}" of {whose}; `walras bids` lists them')
    if len(found) > 1:
        places = ", ".join(
            f"--agent {agent_of(item) or cluster} -n {item['metadata'].get('namespace')}"
            for item in found[:5]
        )
        raise Conflict(f'there are {len(found)} bids "{name}"; choose one by {places}')
    return found[0]


def _events(client: Client, bid: Object, agent: str) -> list[Object]:
    """The bid's Events, oldest first; none where the reader may not see them."""
    name, namespace = bid["metadata"]["name"], bid["metadata"].get("namespace", "default")
    try:
        found = client.get(
            f"api/v1/namespaces/{namespace}/events",
            cluster=agent,
            fieldSelector=f"involvedObject.kind=Bid,involvedObject.name={name}",
        )
    except (NotFound, Forbidden):
        return []
    return sorted(found["items"], key=_last)


def _last(event: Object) -> str:
    stamp = event.get("lastTimestamp") or event.get("eventTime") or dig(event, "metadata.creationTimestamp")
    return str(stamp or "")


def summary(bid: Object, agent: str, events: list[Object]) -> Object:
    """What there is to say of a bid, under the field names of its status."""
    status = bid.get("status") or {}
    explanation = status.get("explanation") or {}
    return {
        "agent": agent,
        "namespace": bid["metadata"].get("namespace", ""),
        "name": bid["metadata"]["name"],
        "class": dig(bid, "spec.class"),
        "asks": asks(bid),
        "maxPrice": max_price(bid),
        "phase": status.get("phase") or "Pending",
        "lease": status.get("lease"),
        **{
            field: explanation.get(field)
            for field in ("reason", "constraint", "clearingPrice", "winningPrice", "position", "message")
        },
        "events": [
            {
                "time": _last(event),
                "type": event.get("type"),
                "reason": event.get("reason"),
                "message": event.get("message"),
                "count": event.get("count") or dig(event, "series.count") or 1,
            }
            for event in events
        ],
    }


def _print(result: Object) -> None:
    click.echo(f"bid/{result['name']} of agent {result['agent']} in namespace {result['namespace']}")
    if result["message"]:
        click.echo(f"{result['message']}\n")
    facts(
        (
            ("Phase", " ".join(filter(None, (result["phase"], _bracketed(result["reason"]))))),
            ("Asks for", result["asks"]),
            ("Class", result["class"]),
            ("Bids at most", result["maxPrice"]),
            ("Bound by", result["constraint"]),
            ("Clearing price", result["clearingPrice"]),
            ("Would have won at", result["winningPrice"]),
            # 0 stands for a bid that has no place, such as one that fits no device.
            ("Place in the order", result["position"] or None),
            ("Lease", result["lease"]),
        )
    )
    if result["events"]:
        now_ms = time.time_ns() // 1_000_000
        click.echo("Events:")
        for event in result["events"][-EVENTS_SHOWN:]:
            times = f" (x{event['count']})" if event["count"] > 1 else ""
            click.echo(f"  {age(event['time'], now_ms):>6}  {event['reason']}  {event['message']}{times}")


def _bracketed(text: Any) -> str:
    return f"({text})" if text else ""

"""Every built-in type on both servers: its place in discovery, what becomes of objects, how they print."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncGenerator, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from differential.compare import Difference, differences
from differential.normal import Normaliser
from differential.running import make_namespace
from differential.sides import Answer, Side
from differential.steps import SELF, Scenario, Step
from walras.kube.registry import Resource
from walras.kube.registry_builtin import BUILTIN

FOLDER: Final = Path(__file__).parents[1] / "data" / "types"
TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io"
AGGREGATED: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_MERGE: Final = "application/merge-patch+json"
_AT_ONCE: Final = 8
# Groups that every cluster of this project has, or the operator's.
_OWN: Final = ("walras.dev", "networking.internal.knative.dev")
# Ports and addresses of Services, and random suffixes: each server takes its own.
_ADDRESS: Final = re.compile(r"\b10\.[089]\.(?!0\.77\b)\d{1,3}\.\d{1,3}\b")
_PORT: Final = re.compile(r"\b3[0-2]\d{3}\b")
_RESOURCES: Final = {(each.api_version, each.plural): each for each in BUILTIN}


def scenarios() -> Iterator[Scenario]:
    """One for each line of the data: its object made, printed, changed, read and deleted."""
    for file in sorted(FOLDER.glob("*.yaml")):
        for number, line in enumerate(yaml.safe_load(file.read_text()), 1):
            yield Scenario(f"{file.stem}-{number}", tuple(_steps(line)))


def _steps(line: Any) -> Iterator[Step]:
    api_version, _, plural = line["of"].rpartition("/")
    resource = _RESOURCES[api_version, plural]
    made = json.loads(json.dumps(line["make"]).replace("$csr$", _request()))
    what, collection, one = f"types {plural}", _collection(resource), f"{_collection(resource)}/{_name(made)}"
    made = {"apiVersion": api_version, "kind": resource.kind, **made}
    yield Step(1, "POST", collection, f"{what} create", body=made)
    yield Step(2, "GET", one, f"{what} table", accept=TABLE)
    for number, change in enumerate(line.get("then", ()), 3):
        ((to, body),) = change.items()
        path = one if to == "patch" else f"{one}/{to}"
        yield Step(number, "PATCH", path, f"{what} {to}", body=body, content_type=_MERGE)
    yield Step(90, "GET", one, f"{what} get")
    yield Step(91, "GET", one, f"{what} table after", accept=TABLE)
    yield Step(92, "DELETE", one, f"{what} delete")


def _collection(resource: Resource) -> str:
    prefix = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
    namespace = f"/namespaces/{SELF}" if resource.namespaced else ""
    return f"{prefix}{namespace}/{resource.plural}"


def _name(made: Any) -> str:
    name = made["metadata"].get("name")
    return str(name) if name else "$name:1$"


@cache
def _request() -> str:
    """A certificate signing request, as the API carries it."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "someone")])
    key = ec.generate_private_key(ec.SECP256R1())
    signed = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()


async def compare(
    theirs: Side, ours: Side, only: str = ""
) -> AsyncGenerator[tuple[Scenario, Difference], None]:
    """Every difference in what both servers say, of scenarios whose objects' types contain `only`."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(scenario: Scenario) -> list[tuple[Scenario, Difference]]:
        async with gate:
            return [(scenario, found) async for found in _played(theirs, ours, scenario)]

    chosen = [each for each in (*scenarios(), discovery()) if only in each.steps[0].path]
    for done in await asyncio.gather(*(one(scenario) for scenario in chosen)):
        for found in done:
            yield found


async def _played(theirs: Side, ours: Side, scenario: Scenario) -> AsyncGenerator[Difference, None]:
    own = f"t-{scenario.seed}"
    await asyncio.gather(*(make_namespace(side, own) for side in (theirs, ours)))
    normal = Normaliser(own), Normaliser(own)
    answers: tuple[dict[int, Any], dict[int, Any]] = ({}, {})
    for step in scenario.steps:
        (left,) = await theirs.ask(step, own, answers[0])
        (right,) = await ours.ask(step, own, answers[1])
        answers[0][step.id], answers[1][step.id] = left.body, right.body
        for found in differences(step, _plain(normal[0], left), _plain(normal[1], right)):
            yield found
        if step.id == 1 and left.status >= 400:
            return


def _plain(normal: Normaliser, answer: Answer) -> Any:
    text = json.dumps(normal(answer))
    plain = json.loads(_PORT.sub("30000", _ADDRESS.sub("<address>", text)))
    for part in ("items", "groups"):
        # What only one of the servers has: its own groups.
        if isinstance(plain["body"], dict) and isinstance(plain["body"].get(part), list):
            plain["body"][part] = [each for each in plain["body"][part] if not _own(each)]
    return plain


def _own(group: Any) -> bool:
    return (group.get("name") or (group.get("metadata") or {}).get("name")) in _OWN


def discovery() -> Scenario:
    """The documents of discovery, of built-in groups."""
    versions = dict.fromkeys((each.group, each.version) for each in BUILTIN)
    steps = [
        Step(1001, "GET", "/api", "discovery aggregated", accept=AGGREGATED),
        Step(1002, "GET", "/apis", "discovery aggregated", accept=AGGREGATED),
        Step(1003, "GET", "/api", "discovery plain"),
        Step(1004, "GET", "/apis", "discovery plain"),
    ]
    for number, (group, version) in enumerate(versions, 1005):
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        steps.append(Step(number, "GET", path, "discovery resources"))
        if group:
            steps.append(Step(number + 500, "GET", f"/apis/{group}", "discovery group"))
    return Scenario("discovery", tuple(steps))

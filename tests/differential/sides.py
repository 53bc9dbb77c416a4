"""The two servers as clients see them: requests out, answers back."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import httpx
import structlog
import yaml
from support import reference

from differential.steps import Scenario, Step, filled
from walras.kube.admission.reach import Network, Reach
from walras.kube.api import API
from walras.kube.context import Identity
from walras.kube.serve.app import Application
from walras.kube.serve.server import serve
from walras.kube.store.sqlite import MEMORY, SqliteStore
from walras.kube.verbs import Verbs
from walras.server import tls
from walras.server.system import SystemClock, SystemIds

TIMEOUT_S: Final = 60.0
_TOKEN: Final = "differential"
_QUOTA: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status, the headers that mean something, and the body, decoded where it can be."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Side:
    """One server under test."""

    def __init__(self, name: str, base: str, ca_file: Path, token: str) -> None:
        self.name = name
        self.base = base
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=ca_file),
            headers={"authorization": f"Bearer {token}"},
            timeout=TIMEOUT_S,
            limits=limits,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, step: Step, own: str, answers: Mapping[int, Any]) -> list[Answer]:
        """The answers to a step: as many as it says, sorted where they raced."""
        sent = [filled(step, own, answers, turn) for turn in range(step.times)]
        requests = [
            self._client.build_request(
                each.method, self.base + each.target, headers=dict(each.headers), content=each.content
            )
            for each in sent
        ]
        raced = await asyncio.gather(*map(self._send, requests))
        return sorted(raced, key=lambda answer: answer.status)

    async def _send(self, request: httpx.Request) -> Answer:
        response = await self._client.send(request)
        headers = {
            name: value
            for name in ("content-type", "warning", "retry-after", "allow")
            if (value := ", ".join(response.headers.get_list(name)))
        }
        return Answer(response.status_code, headers, _decoded(response))


def _decoded(response: httpx.Response) -> Any:
    text = response.text
    media = response.headers.get("content-type", "").partition(";")[0]
    if "watch" in response.request.url.query.decode() and response.status_code == 200:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    try:
        if media == "application/yaml":
            return json.loads(json.dumps(yaml.safe_load(text), default=str))
        return json.loads(text)
    except (ValueError, yaml.YAMLError):
        return text


async def play(side: Side, scenario: Scenario, own: str) -> AsyncGenerator[tuple[Step, list[Answer]], None]:
    """Each step with what the server answered, in a namespace named `own`."""
    answers: dict[int, Any] = {}
    for step in scenario.steps:
        got = await side.ask(step, own, answers)
        answers[step.id] = got[0].body
        yield step, got


@asynccontextmanager
async def embedded(work: Path, networks: Iterable[Network] = ()) -> AsyncIterator[Side]:
    """The API server of this project, alone: no controllers, no market; webhooks may be in the networks."""
    log = _log(work)
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.WriteLoggerFactory(log),
    )
    store, clock = SqliteStore(MEMORY), SystemClock()
    api = API(store, clock, SystemIds())
    api.admission.webhooks.reach = Reach(api, networks=networks)
    await api.create_cluster("fleet")
    for name in ("default", "kube-system", "kube-public"):
        await api.create("fleet", "namespaces", {"metadata": {"name": name}})
    certificates = tls.ensure(work / "tls", "127.0.0.1", clock.now_ms())
    app = Application(Verbs(api, lambda _: _QUOTA), _Admin(), clock)
    running = await serve(app, "127.0.0.1", 0, certificates.cert_file, certificates.key_file)
    side = Side("embedded", f"{running.url}/clusters/fleet", certificates.ca_file, _TOKEN)
    try:
        yield side
    finally:
        await side.close()
        await running.close()
        store.close()
        structlog.reset_defaults()
        log.close()


def _log(work: Path) -> TextIO:
    work.mkdir(parents=True, exist_ok=True)
    return (work / "server.log").open("w")


class _Admin:
    def identify(self, token: str) -> Identity | None:
        return (
            Identity("admin", ("system:masters", "system:authenticated"), uid="admin")
            if token == _TOKEN
            else None
        )


@asynccontextmanager
async def real(work: Path) -> AsyncIterator[Side]:
    """kube-apiserver over etcd, alone."""
    with reference.running(work) as running:
        side = Side("real", running.url, running.ca_file, running.token)
        try:
            yield side
        finally:
            await side.close()

"""Devices are allocated as the real kube-scheduler allocates them: the same ones, with the same amounts."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import reference
from support.devices import device_class
from support.reference import Reference

from differential.claims import Case, generate
from walras.core.errors import WalrasError
from walras.tenants.claims import asks
from walras.tenants.claims.effort import Effort
from walras.tenants.claims.pools import Pools
from walras.tenants.claims.result import allocation, taken_by
from walras.tenants.claims.search import Search
from walras.tenants.fit import Node

CASES = int(os.environ.get("WALRAS_ALLOCATION_CASES", "150"))
SEED = os.environ.get("WALRAS_ALLOCATION_SEED", "allocation")
DEADLINE_S = 240.0

_WHY = reference.missing("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(_WHY), reason=_WHY or "there")]

Object = dict[str, Any]
RESOURCE = "/apis/resource.k8s.io/v1"
CLAIMS = f"{RESOURCE}/namespaces/default/resourceclaims"
PODS = "/api/v1/namespaces/default/pods"


class Real:
    """The real cluster."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def create(self, path: str, obj: Object) -> Object:
        answer = await self._client.post(path, json=obj)
        assert answer.status_code in (200, 201), f"{path}: {answer.text}"
        made: Object = answer.json()
        return made

    async def by_name(self, path: str) -> dict[str, Object]:
        answer = await self._client.get(path)
        return {each["metadata"]["name"]: each for each in answer.json()["items"]}

    async def until(self, true: Callable[[], Awaitable[bool]], what: str) -> None:
        for _ in range(int(DEADLINE_S * 4)):
            if await true():
                return
            await asyncio.sleep(0.25)
        raise AssertionError(f"waited {DEADLINE_S:.0f} s for {what}")

    async def play(self, cases: Sequence[Case], turn: int) -> dict[str, Object]:
        """Lets the pods of a turn come; the claims once each of the pods has a node or is refused one."""
        for case in cases:
            for claim in case.claims[turn]:
                await self.create(CLAIMS, claim)
            await self.create(PODS, case.pod(turn))
        names = {case.pod(turn)["metadata"]["name"] for case in cases}

        async def decided() -> bool:
            pods = await self.by_name(PODS)
            return all(_is_decided(pods[name]) for name in names)

        await self.until(decided, "the pods to be scheduled or refused")
        return await self.by_name(CLAIMS)

    async def ready(self) -> bool:
        answer = await self._client.get("/api/v1/namespaces/default/serviceaccounts/default")
        return answer.status_code == 200


def _is_decided(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(each["type"] == "PodScheduled" for each in conditions)


def ours(case: Case, turn: int, real: dict[str, Object]) -> list[Object] | None:
    """What we allocate to the claims of a turn, beside what the real scheduler gave those before."""
    classes = {case.name: case.device_class(), **{"gpu": device_class("gpu")}}
    node = Node(case.name, {}, (), {}, ())
    taken = taken_by(real[each["metadata"]["name"]] for each in case.claims[0] if turn)
    try:
        asked = [asks.read(each, classes.get) for each in case.claims[turn]]
        found = Search(asked, Pools(case.slices()).on(node), taken, Effort(10_000_000)).run()
    except WalrasError:
        return None
    if found is None:
        return None
    pairs = zip(asked, found, strict=True)
    return [allocation(each, picks, case.name, lambda: "share") for each, picks in pairs]


def theirs(case: Case, turn: int, real: dict[str, Object]) -> list[Object] | None:
    """What the real scheduler allocated, with our names of what it makes up."""
    found = []
    for each in case.claims[turn]:
        given = (real[each["metadata"]["name"]].get("status") or {}).get("allocation")
        if given is None:
            return None
        given.pop("allocationTimestamp", None)
        for result in given["devices"].get("results") or ():
            if "shareID" in result:
                result["shareID"] = "share"
        given["devices"].setdefault("results", [])
        found.append(given)
    return found


def test_claims_of_a_seed_get_the_devices_that_the_real_scheduler_gives_them(tmp_path: Path) -> None:
    async def story(referee: Reference) -> None:
        context = ssl.create_default_context(cafile=referee.ca_file)
        headers = {"authorization": f"Bearer {referee.token}"}
        async with httpx.AsyncClient(
            base_url=referee.url, headers=headers, verify=context, trust_env=False, timeout=60
        ) as client:
            real = Real(client)
            await real.until(real.ready, "the controllers")
            cases = [generate(number, SEED) for number in range(CASES)]
            for case in cases:
                await real.create("/api/v1/nodes", case.node())
                await real.create(f"{RESOURCE}/deviceclasses", case.device_class())
                for each in case.slices():
                    await real.create(f"{RESOURCE}/resourceslices", each)
            wrong, met = [], 0
            for turn in range(2):
                claims = await real.play(cases, turn)
                for case in cases:
                    expected, got = theirs(case, turn, claims), ours(case, turn, claims)
                    met += expected is not None
                    if expected != got:
                        wrong.append(f"case {case.number}, turn {turn}\n  real {expected}\n  ours {got}")
            assert CASES // 2 < met < 2 * CASES
            assert not wrong, f"{len(wrong)} of {2 * CASES}\n" + "\n".join(wrong[:10])

    with reference.running(tmp_path) as referee:
        referee.manage()
        asyncio.run(story(referee))

"""Several runtimes behind one port."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from walras.core.errors import Invalid
from walras.runtimes.base import ContainerSpec, Limits, NoRuntime, PodRef
from walras.runtimes.dispatch import Runtimes
from walras.runtimes.fake import FakeRuntime
from walras.runtimes.handlers import HANDLERS, Offer, offers, runtimes
from walras.runtimes.shares import Shares


def pod(handler: str) -> PodRef:
    return PodRef("acme", "base", f"uid-{handler}", "p", handler)


def spec(handler: str) -> ContainerSpec:
    return ContainerSpec(pod(handler), "main", 0, ("run",))


def test_a_pod_goes_to_the_runtime_of_its_handler_and_without_one_to_the_default(tmp_path: Path) -> None:
    async def run() -> None:
        first, second = FakeRuntime(), FakeRuntime(handlers=("", "second"))
        both = Runtimes(Shares(tmp_path, use_cgroups=False), {"first": first, "second": second}, "second")
        await both.open()
        for handler in ("second", ""):
            await both.start(spec(handler), lambda _stream, _data: None, Limits())
        assert [each.spec.pod.handler for each in second.processes] == ["second", ""]
        assert not first.processes
        await both.remove_pod(pod("second"))
        assert second.removed_pods == [pod("second")] and not first.removed_pods
        await both.close()
        assert not any(process.alive for process in second.processes)

    asyncio.run(run())


def test_a_handler_that_nobody_has_is_refused_and_has_nothing_to_remove(tmp_path: Path) -> None:
    async def run() -> None:
        only = Runtimes(Shares(tmp_path, use_cgroups=False), {"process": FakeRuntime()}, "process")
        with pytest.raises(NoRuntime, match='no runtime for "runsc" is configured'):
            only.traits(pod("runsc"))
        with pytest.raises(NoRuntime):
            await only.start(spec("runsc"), lambda _stream, _data: None, Limits())
        await only.remove_pod(pod("runsc"))

    asyncio.run(run())


def test_every_handler_is_offered_or_comes_with_what_to_do(tmp_path: Path) -> None:
    found = offers(tmp_path)
    assert tuple(each.handler for each in found) == HANDLERS
    assert all(each.make is not None or each.advice for each in found)


def test_a_default_that_is_not_to_be_had_is_refused(tmp_path: Path) -> None:
    missing = Offer("container", None, "podman is not installed", "install it")
    with pytest.raises(Invalid, match="--runtime container: podman is not installed: install it"):
        runtimes(tmp_path, "container", [*offers(tmp_path)[:1], missing])

"""Random leases, faults and crashes over simulated cards: money is conserved, and no card is used twice."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.cards import Cards, driver
from support.promises import Promises

from walras.core.clock import SequenceIds, VirtualClock
from walras.core.money import WHOLE_GPU_MILLI
from walras.cost import usage
from walras.devices.mig import MigInstance, state_of
from walras.devices.mig_profiles import GEOMETRIES
from walras.exchange.demand import FLEET, PODS
from walras.kube.policy import SLICES
from walras.kube.record import Object
from walras.runtimes.gpus import machine
from walras.runtimes.gpus.simulated_cards import SimulatedCards

H100 = GEOMETRIES["H100-80GB"]
AGENTS = ("one", "two")
# What happens: to a card (by number), to an agent, to the server.
events = st.one_of(
    st.tuples(st.just("pod"), st.sampled_from(AGENTS), st.sampled_from(["250", "500", "1000"])),
    st.tuples(st.just("pod"), st.sampled_from(AGENTS), st.sampled_from(["1g.10gb", "3g.40gb", "2g.20gb"])),
    st.tuples(st.just("done"), st.sampled_from(AGENTS), st.just("")),
    st.tuples(
        st.sampled_from(["xid", "lose", "stranger", "return", "hang"]), st.sampled_from("01"), st.just("")
    ),
    st.tuples(st.just("crash"), st.just(""), st.just("")),
    st.tuples(st.just("wait"), st.sampled_from(["1000", "20000"]), st.just("")),
)


# Each example starts servers and daemons: few of them, and no search for a smaller one.
@settings(max_examples=15, phases=(Phase.explicit, Phase.generate))
@given(st.lists(events, min_size=3, max_size=14))
def test_whatever_happens_to_cards_money_is_conserved_and_nothing_is_used_twice(
    story: Sequence[tuple[str, str, str]],
) -> None:
    clock = VirtualClock()
    with tempfile.TemporaryDirectory() as folder, driver("H100", "H100", now_ms=clock.now_ms) as cards:
        asyncio.run(_tell(story, Path(folder), clock, cards))


async def _tell(
    story: Sequence[tuple[str, str, str]], folder: Path, clock: VirtualClock, cards: SimulatedCards
) -> None:
    teller = _Teller(folder, clock, cards)
    await teller.open()
    for agent in AGENTS:
        await teller.world.agent(agent)
    try:
        for what, which, how in story:
            await teller.tell(what, which, how)
            teller.check()
        await teller.mend()
    finally:
        await teller.close()


class _Teller:
    """One world after the other over the same data and the same cards."""

    def __init__(self, folder: Path, clock: VirtualClock, cards: SimulatedCards) -> None:
        self._folder, self._clock, self._cards = folder, clock, cards
        # One server never gives out the ids of another.
        self._made, self._ids = 0, SequenceIds()
        self._promises = Promises()

    async def open(self) -> None:
        self._here = machine.simulated(self._folder / "data")
        self.world = Cards(self._folder / "db", self._clock, self._cards, self._here, self._ids)
        await self.world.open()

    async def close(self) -> None:
        await self.world.close()
        self._here.close()

    async def tell(self, what: str, which: str, how: str) -> None:
        world = self.world
        match what:
            case "pod":
                self._made += 1
                await world.pod(which, f"p{self._made}", 0, "2.00")
                await world.api.edit(which, PODS, "default", f"p{self._made}", lambda pod: _asks(pod, how))
                await world.step(1000)
                await self._bind(which)
            case "done":
                for pod in world.api.list(which, PODS)[:1]:
                    name = pod["metadata"]["name"]
                    await world.api.edit(
                        which, PODS, "default", name, lambda pod: pod["status"].update(phase="Succeeded")
                    )
                await world.step(1000)
            case "xid":
                self._cards.xid(int(which), 79)
                await world.hear()
            case "lose":
                self._cards.lose(int(which))
                await world.look()
            case "stranger":
                self._cards.run(int(which), 4711, 500)
                await world.look()
                await world.look()
            case "hang":
                self._hang(f"local/gpu-{which}")
            case "return":
                self._heal(int(which))
                await world.look()
                await world.api.edit(FLEET, SLICES, "", "local-gpus", _without_taints)
                await world.step(1000)
            case "crash":
                self._heal_all()
                await self.close()
                await self.open()
            case _:
                await world.step(int(which))

    async def _bind(self, agent: str) -> None:
        """As the agent's scheduler would: each node's pod is the one whose bid won it."""
        for node in self.world.nodes(agent):
            name = node["metadata"]["labels"]["walras.dev/bid"]
            pod = self.world.api.find(agent, PODS, "default", name)
            if pod is not None and not pod["spec"].get("nodeName"):
                await self.world.bind(agent, name, node["metadata"]["name"])

    def _hang(self, device: str) -> None:
        for agent in AGENTS:
            for lease in self.world.leases(agent):
                on = [each["device"] for each in lease["spec"]["devices"]]
                if device in on and (node := lease["status"].get("node")):
                    self.world.runtime.hung.add((agent, node))

    def _heal_all(self) -> None:
        """A card that is lost at a start is not there at all; that is another story."""
        for at in (0, 1):
            self._heal(at)

    def _heal(self, at: int) -> None:
        self._cards.end(4711)
        with self._cards.state() as state:
            lost = state.cards[at].lost
        if lost:
            self._cards.lose(at, lost=False)

    def check(self) -> None:
        """What holds at any time, the books, who is on which card, and that none is cut as none can be."""
        self._promises.check(self.world)
        self.world.check_money()
        by_device: dict[str, list[Object]] = {}
        for agent in AGENTS:
            for lease in self.world.leases(agent):
                if lease["status"]["phase"] in ("Active", "Draining"):
                    for share in lease["spec"]["devices"]:
                        by_device.setdefault(share["device"], []).append(share)
        for shares in by_device.values():
            assert sum(share["milliGPU"] for share in shares) <= WHOLE_GPU_MILLI
            assert len({share["enforcement"] for share in shares}) == 1, "one way to share a card at a time"
            cuts = [share["mig"].split("@") for share in shares if "mig" in share]
            state_of(H100, [MigInstance(profile, int(start)) for profile, start in cuts])
        with self._cards.state() as state:
            for at, card in enumerate(state.cards):
                state_of(H100, [each.cut for each in card.instances])
                leased = {share.get("mig") for share in by_device.get(f"local/gpu-{at}", [])} - {None}
                if not card.lost and not self.world.taints(at):
                    assert leased <= {str(each.cut) for each in card.instances if each.computes}

    async def mend(self) -> None:
        """In the end everything is well again, and a whole lease can be had of each card."""
        world = self.world
        self._heal_all()
        world.runtime.hung.clear()
        for agent in AGENTS:
            for pod in world.api.list(agent, PODS):
                await world.api.delete(agent, PODS, "default", pod["metadata"]["name"], grace_seconds=0)
        await world.look()
        await world.api.edit(FLEET, SLICES, "", "local-gpus", _without_taints)
        await world.step(60_000)
        await world.step(60_000)
        for agent in AGENTS:
            await world.pod(agent, "last", 1000, "9.00")
        await world.step(1000)
        await world.look()
        await world.step(1000)
        assert [len(world.nodes(agent)) for agent in AGENTS] == [1, 1]
        with self._cards.state() as state:
            assert [card.instances for card in state.cards] == [[], []], "no instance is left"
        assert usage.report(world.store, by="agent").total_micros >= 0
        self.check()


def _asks(pod: Object, how: str) -> None:
    limits = {"walras.dev/milligpu": how} if how.isdigit() else {f"nvidia.com/mig-{how}": "1"}
    pod["spec"]["containers"][0]["resources"] = {"limits": limits, "requests": dict(limits)}


def _without_taints(found: Object) -> None:
    for device in found["spec"]["devices"]:
        device.pop("taints", None)

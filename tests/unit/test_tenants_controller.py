"""The work queue: no key twice at once, failures later and later, clusters in turn."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

from walras.core.clock import VirtualClock
from walras.core.errors import StorageError
from walras.tenants.controller import IN_FLIGHT_MAX, FairQueue, Key, Manager, Work


class Recording:
    """Notes what it is given; does what `act` says."""

    def __init__(self, act: Callable[[Key], int | None] = lambda _: None) -> None:
        self.seen: list[Key] = []
        self.busy: set[Key] = set()
        self.started = asyncio.Event()
        self.act = act

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        key = Key(cluster, namespace, name)
        assert key not in self.busy
        self.busy.add(key)
        self.started.set()
        self.seen.append(key)
        await asyncio.sleep(0)
        self.busy.remove(key)
        return self.act(key)


def run(story: Callable[[Manager, VirtualClock], Coroutine[Any, Any, None]]) -> None:
    async def told() -> None:
        clock = VirtualClock()
        manager = Manager(clock)
        manager.start()
        await story(manager, clock)
        await manager.stop()

    asyncio.run(told())


def test_a_quiet_cluster_waits_one_turn_behind_a_flooding_one() -> None:
    queue, controller = FairQueue(), Recording()
    for number in range(1000):
        queue.add(Work(controller, Key("flood", "", str(number))))
    queue.add(Work(controller, Key("quiet", "", "only")))
    order = []
    while (work := queue.take()) is not None:
        order.append(work.key.cluster)
        queue.done(work)
    assert order.index("quiet") == 1
    assert len(order) == 1001


def test_a_quiet_cluster_is_served_while_a_flood_is_under_way() -> None:
    async def story(manager: Manager, clock: VirtualClock) -> None:
        controller = Recording()
        for number in range(10 * IN_FLIGHT_MAX):
            manager.add(controller, Key("flood", "", str(number)))
        manager.add(controller, Key("quiet", "", "only"))
        await manager.settle()
        assert controller.seen.index(Key("quiet", "", "only")) == 1

    run(story)


def test_a_key_added_many_times_is_looked_at_once() -> None:
    async def story(manager: Manager, clock: VirtualClock) -> None:
        controller = Recording()
        for _ in range(5):
            manager.add(controller, Key("a", "", "x"))
        await manager.settle()
        assert len(controller.seen) == 1

    run(story)


def test_a_key_that_changes_while_it_is_worked_on_is_looked_at_again_afterwards() -> None:
    async def story(manager: Manager, clock: VirtualClock) -> None:
        controller = Recording()
        key = Key("a", "", "x")
        manager.add(controller, key)
        await controller.started.wait()
        manager.add(controller, key)
        await manager.settle()
        assert controller.seen == [key, key]

    run(story)


def test_a_failure_is_tried_again_later_and_later() -> None:
    async def story(manager: Manager, clock: VirtualClock) -> None:
        def fail(key: Key) -> int | None:
            raise StorageError("disk full")

        controller = Recording(fail)
        manager.add(controller, Key("a", "", "x"))
        await manager.settle()
        tries = []
        for _ in range(200):
            before = len(controller.seen)
            clock.advance(5)
            await manager.settle()
            tries.append(len(controller.seen) - before)
        when = [index for index, tried in enumerate(tries) if tried]
        gaps = [later - earlier for earlier, later in pairwise(when)]
        assert gaps == [2, 4, 8, 16, 32, 64]
        controller.act = lambda _: None
        clock.advance(60_000)
        await manager.settle()
        assert not manager.failures

    run(story)


def test_a_delay_is_kept_and_the_earliest_of_several_counts() -> None:
    async def story(manager: Manager, clock: VirtualClock) -> None:
        controller = Recording()
        key = Key("a", "", "x")
        for after_ms in (5000, 1000, 3000):
            manager.add(controller, key, after_ms)
        clock.advance(999)
        await manager.settle()
        assert controller.seen == []
        clock.advance(1)
        await manager.settle()
        assert controller.seen == [key]
        clock.advance(10_000)
        await manager.settle()
        assert controller.seen == [key]

    run(story)


def test_real_time_wakes_what_is_due() -> None:
    class Ticking(VirtualClock):
        def now_ms(self) -> int:
            return round(asyncio.get_running_loop().time() * 1000)

    async def story() -> None:
        manager, done = Manager(Ticking()), asyncio.Event()

        def finish(key: Key) -> None:
            done.set()

        manager.start()
        manager.add(Recording(finish), Key("a", "", "x"), 2)
        await asyncio.wait_for(done.wait(), 5)
        await manager.stop()

    asyncio.run(story())

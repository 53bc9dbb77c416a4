"""Whose request is next: turns between clusters and between users, by the time that they have had."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest

from walras.core.errors import TooManyRequests
from walras.kube.serve import fair
from walras.kube.serve.fair import Fair


class Timer:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


class Scene:
    def __init__(self) -> None:
        self.timer = Timer()
        self.fair = Fair(self.timer)
        self.done: list[str] = []
        self.refused = 0
        self.cost_ns: Counter[str] = Counter()

    async def ask(self, payer: str, cost_ns: int = 200_000, user: str = "", steps: int = 1) -> None:
        """One request of a cluster, or of the operator for ""."""
        try:
            turn = await self.fair.turn((payer, "" if payer else "operator"), user or payer)
        except TooManyRequests:
            self.refused += 1
            return
        try:
            await turn.run(self._work(payer, user, cost_ns, steps))
        finally:
            turn.leave()

    async def until(self, done: int) -> None:
        """Returns when so many requests are done."""
        for _ in range(100_000):
            if len(self.done) >= done:
                return
            await asyncio.sleep(0)
        raise AssertionError(f"{len(self.done)} are done")

    async def _work(self, payer: str, user: str, cost_ns: int, steps: int) -> None:
        for _ in range(steps - 1):
            self.timer.now_ns += cost_ns // steps
            await asyncio.sleep(0)
        self.timer.now_ns += cost_ns // steps
        self.cost_ns[payer] += cost_ns
        self.done.append(user or payer)


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def test_nobody_waits_while_there_is_time_for_all() -> None:
    async def story() -> None:
        scene = Scene()
        for _ in range(50):
            await scene.ask("a")
            await asyncio.sleep(0)
        assert scene.fair.waiting == 0 and len(scene.done) == 50

    run(story())


def test_one_request_is_before_all_but_a_few_of_a_flood() -> None:
    async def story() -> None:
        scene = Scene()
        flood = [asyncio.create_task(scene.ask("flood")) for _ in range(500)]
        await asyncio.sleep(0)
        assert scene.fair.waiting > 400
        before = len(scene.done)
        await scene.ask("quiet")
        assert scene.done.index("quiet") - before <= 5
        await asyncio.gather(*flood)

    run(story())


def test_two_floods_have_the_same_time_whatever_their_requests_cost() -> None:
    async def story() -> None:
        scene = Scene()
        tasks = [asyncio.create_task(scene.ask("dear", 1_000_000)) for _ in range(400)]
        tasks += [asyncio.create_task(scene.ask("cheap", 100_000)) for _ in range(900)]
        await scene.until(500)
        dear, cheap = scene.cost_ns["dear"], scene.cost_ns["cheap"]
        assert 0.7 < dear / cheap < 1.4, (dear, cheap)
        await asyncio.gather(*tasks)

    run(story())


def test_the_operator_has_four_shares() -> None:
    async def story() -> None:
        scene = Scene()
        tasks = [asyncio.create_task(scene.ask(payer)) for _ in range(600) for payer in ("", "a")]
        await scene.until(400)
        assert 3 < scene.cost_ns[""] / scene.cost_ns["a"] < 5
        await asyncio.gather(*tasks)

    run(story())


def test_users_of_a_cluster_take_turns() -> None:
    async def story() -> None:
        scene = Scene()
        tasks = [asyncio.create_task(scene.ask("a", user="busy")) for _ in range(300)]
        await asyncio.sleep(0)
        before = len(scene.done)
        await scene.ask("a", user="calm")
        assert scene.done.index("calm") - before <= 10
        await asyncio.gather(*tasks)

    run(story())


def test_many_users_of_one_cluster_are_still_one_cluster() -> None:
    async def story() -> None:
        scene = Scene()
        tasks = [asyncio.create_task(scene.ask("many", user=f"u{number}")) for number in range(600)]
        tasks += [asyncio.create_task(scene.ask("one")) for _ in range(600)]
        await scene.until(300)
        assert 0.8 < scene.cost_ns["many"] / scene.cost_ns["one"] < 1.25
        await asyncio.gather(*tasks)

    run(story())


def test_who_was_idle_has_saved_nothing_up() -> None:
    async def story() -> None:
        scene = Scene()
        await scene.ask("late")
        busy = [asyncio.create_task(scene.ask("busy")) for _ in range(300)]
        await scene.until(200)
        scene.cost_ns.clear()
        busy += [asyncio.create_task(scene.ask("late")) for _ in range(300)]
        await scene.until(240)
        assert scene.cost_ns["busy"] > 10 * 200_000
        await asyncio.gather(*busy)

    run(story())


def test_queues_are_bounded_and_what_is_beyond_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair, "WAITING_MAX", 100)
    monkeypatch.setattr(fair, "WAITING_ALL_MAX", 150)

    async def story() -> None:
        scene = Scene()
        tasks = [asyncio.create_task(scene.ask("a")) for _ in range(300)]
        await asyncio.sleep(0)
        assert scene.fair.waiting == 100 and scene.refused > 150
        with pytest.raises(TooManyRequests, match="please try again later") as caught:
            await scene.fair.turn(("a", ""), "a")
        assert caught.value.retry_after_s == 1
        refused = scene.refused
        tasks += [asyncio.create_task(scene.ask("b")) for _ in range(100)]
        await asyncio.sleep(0)
        # The first of them were next; of the others as many wait as all may together.
        assert scene.fair.waiting <= 150 and scene.refused > refused
        await asyncio.gather(*tasks)
        assert scene.fair.waiting == 0
        await scene.ask("a")

    run(story())


def test_what_waits_for_something_else_counts_for_its_own_cluster_alone() -> None:
    async def story() -> None:
        scene, gate = Scene(), asyncio.Event()

        async def slow() -> None:
            turn = await scene.fair.turn(("slow", ""), "slow")
            try:
                await turn.run(gate.wait())
            finally:
                turn.leave()

        tasks = [asyncio.create_task(slow()) for _ in range(fair.RUNNING_MAX + 20)]
        for _ in range(100):
            await asyncio.sleep(0)
        assert scene.fair.waiting == 20
        await asyncio.wait_for(scene.ask("other"), 1)
        gate.set()
        await asyncio.gather(*tasks)
        assert scene.fair.waiting == 0

    run(story())


def test_who_goes_away_while_waiting_leaves_no_trace() -> None:
    async def story() -> None:
        scene = Scene()
        tasks = [asyncio.create_task(scene.ask("a")) for _ in range(200)]
        await asyncio.sleep(0)
        for task in tasks[50:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(100):
            await asyncio.sleep(0)
        assert scene.fair.waiting == 0
        await scene.ask("a")
        assert not scene.fair._flows

    run(story())


def test_thousands_of_clusters_that_asked_once_are_forgotten() -> None:
    async def story() -> None:
        scene = Scene()
        for number in range(2000):
            await scene.ask(f"c{number}")
            await asyncio.sleep(0)
        assert len(scene.fair._flows) < 1000

    run(story())


def test_the_outcome_and_the_errors_of_work_come_through() -> None:
    async def story() -> None:
        scene = Scene()

        async def good() -> int:
            await asyncio.sleep(0)
            return 7

        async def bad() -> None:
            await asyncio.sleep(0)
            raise ValueError("no")

        async def endless() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                scene.done.append("cancelled")
                raise

        turn = await scene.fair.turn(("a", ""), "a")
        assert await turn.run(good()) == 7
        with pytest.raises(ValueError, match="no"):
            await turn.run(bad())
        task = asyncio.create_task(turn.run(endless()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert scene.done == ["cancelled"]
        turn.leave()
        turn.leave()

    run(story())

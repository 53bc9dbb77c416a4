"""Asks conversion webhooks: many objects in one review, and once for all watches of the same change."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from walras.core.errors import Timeout, Unclassified
from walras.kube.admission.http import CalloutFailed, CalloutRefused
from walras.kube.admission.reach import shown_url
from walras.kube.context import Context
from walras.kube.conversion import review
from walras.kube.conversion.answers import Conversions, Unconverted, converted
from walras.kube.record import Object, Record, encode
from walras.kube.registry import Resource

if TYPE_CHECKING:
    from walras.kube.api import API

T = TypeVar("T")

TIMEOUT_S: Final = 30
# How often one request asks: for old and new state, in the version of each manager of its fields.
ROUNDS_MAX: Final = 64
# All that one request needs converted; upstream gives a request as long.
REQUEST_TIMEOUT_S: Final = 60
# Of one review, whose answer may be no larger than http.ANSWER_BYTES_MAX.
REVIEW_BYTES_MAX: Final = 1 << 20
REVIEW_OBJECTS_MAX: Final = 500
# How many reviews one request has under way.
AT_ONCE: Final = 4
# What watches were told lately, of all clusters.
TOLD_BYTES_MAX: Final = 2 << 20

# A stored state and the version in which somebody is told of it.
_Told = tuple[Record, str]


class Converter:
    """Converts objects of every cluster by the webhooks of their definitions."""

    def __init__(self, api: API) -> None:
        self._api = api
        self._told: OrderedDict[_Told, tuple[Resource, Object]] = OrderedDict()
        self._told_bytes = 0
        self._asking: dict[_Told, tuple[Resource, asyncio.Task[None]]] = {}

    async def known(self, ctx: Context, look: Callable[[], T]) -> T:
        """What `look` finds, once everything that it looks at is known in its version."""
        while True:
            try:
                return look()
            except Unconverted as question:
                await self.learn(ctx, question)

    async def learn(self, ctx: Context, question: Unconverted) -> None:
        """Tells the request what was asked. Raises Unclassified where the webhook does not say, Timeout."""
        if ctx.conversions is None:
            ctx.conversions = Conversions()
        ctx.conversions.rounds += 1
        if ctx.conversions.rounds > ROUNDS_MAX:
            key = question.target.key
            raise Unclassified(f"one request for {key} takes more than {ROUNDS_MAX} conversions")
        await self.answer(ctx.cluster, question, ctx.conversions)

    async def answer(self, cluster: str, question: Unconverted, conversions: Conversions) -> None:
        """As `learn`, for nobody's request."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(objects: list[Object]) -> None:
            async with gate:
                found = await self._ask(cluster, question.target, objects)
            for mine, theirs in zip(objects, found, strict=True):
                conversions.learn(question.target, mine, theirs)

        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S), asyncio.TaskGroup() as group:
                for objects in _reviews(question.objects):
                    group.create_task(one(objects))
        except TimeoutError:
            raise Timeout(
                "request did not complete within requested timeout - context deadline exceeded"
            ) from None
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _ask(self, cluster: str, target: Resource, objects: list[Object]) -> list[Object]:
        webhook = target.converter
        assert webhook is not None, "only what a webhook converts is asked about"
        version = next((each for each in webhook.reviews if each in review.KNOWN), None)
        if version is None:
            raise Unclassified("no supported conversion review versions")
        uid = self._api.ids.uid()
        body = review.asked(objects, target, version, uid)
        reach = self._api.admission.webhooks.reach
        try:
            answer = await reach.ask(cluster, webhook.client, body, TIMEOUT_S)
        except CalloutRefused as error:
            raise Unclassified(f"{review.about(objects[0])} failed: {error}") from None
        except CalloutFailed as error:
            where = shown_url(webhook.client, TIMEOUT_S)
            raise Unclassified(f'{review.about(objects[0])} failed: Post "{where}": {error}') from None
        return review.answered(answer, objects, target, version, uid)

    # Watches

    async def told(self, cluster: str, target: Resource, records: Iterable[Record]) -> dict[Record, Object]:
        """The stored states in the version `target`, to be read only; each is asked about once for all.

        Raises as `answer`.
        """
        found: dict[Record, Object] = {}
        mine: list[Record] = []
        others: list[tuple[Record, asyncio.Task[None]]] = []
        for record in records:
            place = (record, target.api_version)
            known, under_way = self._told.get(place), self._asking.get(place)
            if known is not None and known[0] is target:
                found[record] = known[1]
            elif under_way is not None and under_way[0] is target:
                others.append((record, under_way[1]))
            else:
                mine.append(record)
        if mine:
            # Goes on for the others when the one that began it has left.
            task = asyncio.create_task(self._learn(cluster, target, mine, found))
            task.add_done_callback(_heed)
            for record in mine:
                self._asking[record, target.api_version] = (target, task)
            await asyncio.shield(task)
        for record, task in others:
            await asyncio.shield(task)
            kept = self._told.get((record, target.api_version))
            if kept is None:
                return found | await self.told(cluster, target, [each for each, _ in others])
            found[record] = kept[1]
        return found

    async def _learn(
        self, cluster: str, target: Resource, records: list[Record], found: dict[Record, Object]
    ) -> None:
        conversions = Conversions()
        objects = [record.object for record in records]
        try:
            try:
                shown = converted(target, objects, conversions)
            except Unconverted as question:
                await self.answer(cluster, question, conversions)
                shown = converted(target, objects, conversions)
            for record, obj in zip(records, shown, strict=True):
                found[record] = obj
                self._keep(target, record, obj)
        finally:
            for record in records:
                self._asking.pop((record, target.api_version), None)

    def _keep(self, target: Resource, record: Record, obj: Object) -> None:
        self._forget((record, target.api_version))
        self._told[record, target.api_version] = (target, obj)
        self._told_bytes += len(record.raw)
        while self._told_bytes > TOLD_BYTES_MAX and len(self._told) > 1:
            self._forget(next(iter(self._told)))

    def _forget(self, told: _Told) -> None:
        if self._told.pop(told, None) is not None:
            self._told_bytes -= len(told[0].raw)


def _heed(task: asyncio.Task[None]) -> None:
    """Whoever waits for it hears of its failure; with nobody left there is nothing to say."""
    if not task.cancelled():
        task.exception()


def _reviews(objects: list[Object]) -> Iterator[list[Object]]:
    """The objects in as many reviews as their sizes take."""
    found: list[Object] = []
    size = 0
    for obj in objects:
        more = len(encode(obj))
        if found and (size + more > REVIEW_BYTES_MAX or len(found) == REVIEW_OBJECTS_MAX):
            yield found
            found, size = [], 0
        found.append(obj)
        size += more
    if found:
        yield found

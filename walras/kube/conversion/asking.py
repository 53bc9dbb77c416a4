"""Asks conversion webhooks: many objects in one review, and once for all watches of the same change."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from walras.core.errors import Timeout, Unclassified
from walras.kube.admission.http import CalloutFailed, CalloutRefused
from walras.kube.admission.reach import shown_url
from walras.kube.context import Context
from walras.kube.conversion import review
from walras.kube.conversion.answers import Budget, Conversions, Unconverted, converted
from walras.kube.record import Object, Record, size
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
# What watches were told lately, of all clusters: states as they are stored, and what each was converted to.
TOLD_BYTES_MAX: Final = 2 << 20

# A stored state and the version in which somebody is told of it.
_Place = tuple[Record, str]


class Converter:
    """Converts objects of every cluster by the webhooks of their definitions."""

    def __init__(self, api: API) -> None:
        self._api = api
        # With the bytes that each takes.
        self._known: OrderedDict[_Place, tuple[Resource, Object, int]] = OrderedDict()
        self._known_bytes = 0
        self._asking: dict[_Place, _Asked] = {}

    async def known(self, ctx: Context, look: Callable[[], T]) -> T:
        """What `look` finds, once everything that it looks at is known in its version. Raises NotFound when
        the caller's cluster went meanwhile."""
        while True:
            ctx.check_still()
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
        for told in await self._ask(ctx.cluster, question, ctx.conversions.budget):
            _read(question.target, [told], ctx.conversions)
            # Long lists let others in between.
            await asyncio.sleep(0)

    async def _ask(self, cluster: str, question: Unconverted, budget: Budget) -> list[_Told]:
        """What the webhook says, unread: that takes time, which is for whoever waits for it to spend."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(objects: list[Object]) -> _Told:
            async with gate:
                told = await self._post(cluster, question.target, objects)
            budget.answered(len(told.answer), review.about(objects[0]))
            return told

        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S), asyncio.TaskGroup() as group:
                asked = []
                for objects, taken in _reviews(question.objects):
                    budget.asked(taken)
                    asked.append(group.create_task(one(objects)))
        except TimeoutError:
            said = "request did not complete within requested timeout - context deadline exceeded"
            raise Timeout(said) from None
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in asked]

    async def _post(self, cluster: str, target: Resource, objects: list[Object]) -> _Told:
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
        return _Told(objects, answer, version, uid)

    # Watches

    async def told(self, cluster: str, target: Resource, records: Iterable[Record]) -> dict[Record, Object]:
        """The stored states in the version `target`, to be read only; each is asked about once for all.

        Raises as `learn`.
        """
        found: dict[Record, Object] = {}
        mine: list[Record] = []
        waiting: dict[_Asked, list[Record]] = {}
        for record in records:
            place = (record, target.api_version)
            known, under_way = self._known.get(place), self._asking.get(place)
            if known is not None and known[0] is target:
                found[record] = known[1]
            elif under_way is not None and under_way.target is target:
                waiting.setdefault(under_way, []).append(record)
            else:
                mine.append(record)
        if mine:
            waiting[self._begin(cluster, target, mine)] = mine
        for asked, wanted in waiting.items():
            # Goes on for the others when the one that began it has left.
            read = asked.read(await asyncio.shield(asked.task))
            for record in wanted:
                found[record] = read[record]
                self._keep(target, record, read[record])
        return found

    def _begin(self, cluster: str, target: Resource, records: list[Record]) -> _Asked:
        """Asks about the records, and lets others know that they need not."""
        objects = {record: record.object for record in records}
        question: Unconverted | None = None
        try:
            converted(target, objects.values(), None)
        except Unconverted as missing:
            question = missing
        asking = self._ask(cluster, question, Budget()) if question else _none()
        task = asyncio.create_task(asking)
        asked = _Asked(target, objects, task)
        places = [(record, target.api_version) for record in records]
        self._asking.update(dict.fromkeys(places, asked))

        def over(task: asyncio.Task[list[_Told]]) -> None:
            if not task.cancelled():
                # Whoever waits for it hears of its failure; with nobody left there is nothing to say.
                task.exception()
            for place in places:
                if self._asking.get(place) is asked:
                    del self._asking[place]

        task.add_done_callback(over)
        return asked

    def _keep(self, target: Resource, record: Record, obj: Object) -> None:
        place = (record, target.api_version)
        known = self._known.get(place)
        if known is not None and known[1] is obj:
            # Another watch that waited for it was first.
            return
        self._forget(place)
        # A webhook may make much of little.
        taken = len(record.raw) + size(obj)
        self._known[place] = (target, obj, taken)
        self._known_bytes += taken
        while self._known_bytes > TOLD_BYTES_MAX and len(self._known) > 1:
            self._forget(next(iter(self._known)))

    def _forget(self, place: _Place) -> None:
        known = self._known.pop(place, None)
        if known is not None:
            self._known_bytes -= known[2]


class _Told(NamedTuple):
    """The answer to one review of `objects`."""

    objects: list[Object]
    answer: bytes
    review_version: str
    uid: str


def _read(target: Resource, told: list[_Told], conversions: Conversions) -> None:
    """Has the conversions know what was told. Raises Unclassified."""
    for each in told:
        found = review.answered(each.answer, each.objects, target, each.review_version, each.uid)
        for mine, theirs in zip(each.objects, found, strict=True):
            conversions.learn(target, mine, theirs)


class _Asked:
    """Records that are being asked about for watches. The first that has the answer reads it for all."""

    def __init__(
        self, target: Resource, objects: dict[Record, Object], task: asyncio.Task[list[_Told]]
    ) -> None:
        self.target = target
        self.task = task
        self._objects = objects
        self._read: dict[Record, Object] | None = None
        self._failure: Unclassified | None = None

    def read(self, told: list[_Told]) -> dict[Record, Object]:
        """What the records are in the version. Raises Unclassified."""
        if self._failure is not None:
            raise self._failure
        if self._read is None:
            conversions = Conversions()
            try:
                _read(self.target, told, conversions)
            except Unclassified as failure:
                self._failure = failure
                raise
            shown = converted(self.target, self._objects.values(), conversions)
            self._read = dict(zip(self._objects, shown, strict=True))
        return self._read


async def _none() -> list[_Told]:
    return []


def _reviews(objects: list[Object]) -> Iterator[tuple[list[Object], int]]:
    """The objects in as many reviews as their sizes take, and the bytes of each."""
    found: list[Object] = []
    taken = 0
    for obj in objects:
        more = size(obj)
        if found and (taken + more > REVIEW_BYTES_MAX or len(found) == REVIEW_OBJECTS_MAX):
            yield found, taken
            found, taken = [], 0
        found.append(obj)
        taken += more
    if found:
        yield found, taken

"""Requests that wait, mostly for somebody outside: begun anew, on the state of then, with what is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from walras.core.errors import Conflict
from walras.kube.admission.call import ROUNDS_MAX, Review, Unanswered
from walras.kube.api import API
from walras.kube.context import Context
from walras.kube.conversion.answers import Unconverted
from walras.kube.steps import Aside, Untaken
from walras.kube.transaction import Transaction

T = TypeVar("T")


class Stager:
    """Stages writes. Nothing is held while somebody outside is asked."""

    def __init__(self, api: API) -> None:
        self._api = api
        self._admission = api.admission
        self.aside = Aside()

    async def write(self, ctx: Context, stage: Callable[[Transaction], T]) -> T:
        """What `stage` returns, once that is committed, or would be in a dry run.

        Raises Conflict when that never comes to rest, NotFound when the caller's cluster went meanwhile.
        """
        rounds = 0
        if ctx.steps is not None:
            ctx.review = ctx.review or self._admission.review()
        while rounds < ROUNDS_MAX:
            ctx.check_still()
            # What admission keeps of a cluster is not there while it sleeps.
            self._api.rouse(ctx.cluster)
            if ctx.review is not None:
                ctx.review.rewind()
            transaction = self._api.transaction(ctx.review)
            try:
                result = stage(transaction)
            except (Unanswered, Unconverted, Untaken) as waits:
                rounds += isinstance(waits, Unanswered)
                if ctx.review is None:
                    # What is asked about has names and times that will be the same when it is staged again.
                    ctx.review = self._admission.review()
                else:
                    await self._learn(ctx, ctx.review, waits)
                continue
            if not ctx.dry_run:
                await transaction.commit()
            return result
        raise Conflict("the object changes faster than its admission webhooks answer; try again")

    async def _learn(self, ctx: Context, review: Review, waits: Unanswered | Unconverted | Untaken) -> None:
        """Finds out what staging cannot go on without."""
        if isinstance(waits, Unanswered):
            review.answers.append(await self._admission.ask(waits))
        elif isinstance(waits, Untaken):
            await self.aside.learn(ctx, waits)
        else:
            await self._api.converter.learn(ctx, waits)

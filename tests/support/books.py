"""Books on disk: what a treasury and the meters have staged, committed in one transaction."""

from __future__ import annotations

import asyncio
from typing import Any

from walras.cost import usage
from walras.exchange.treasury import Treasury
from walras.kube.api import API


def save(api: API, treasury: Treasury, *used: tuple[Any, ...]) -> None:
    """`used`: rows of the usage table."""

    async def commit() -> None:
        tx = api.transaction()
        treasury.store(tx)
        if used:
            tx.execute(usage.ADD, used)
        await tx.commit()

    asyncio.run(commit())

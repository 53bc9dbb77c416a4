"""Every mechanism by the name that a pool's rules use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from walras.market.auction import Auction
from walras.market.mechanism import Mechanism
from walras.market.mechanisms.drf import Drf
from walras.market.mechanisms.fairshare import FairShare
from walras.market.mechanisms.fifo import Fifo
from walras.market.mechanisms.finishtime import FinishTime
from walras.market.mechanisms.karma import Karma
from walras.market.mechanisms.posted import PostedPrice
from walras.market.mechanisms.priority import Priority
from walras.market.mechanisms.proportional import ProportionalShare
from walras.market.mechanisms.static import StaticSplit

MECHANISMS: Final[Mapping[str, Mechanism]] = {
    "auction": Auction(),
    "fifo": Fifo(),
    "priority": Priority(),
    "static": StaticSplit(),
    "drf": Drf(),
    "fairshare": FairShare(),
    "karma": Karma(),
    "proportional": ProportionalShare(),
    "posted": PostedPrice(),
    "finishtime": FinishTime(),
}

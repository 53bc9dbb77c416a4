"""What came in since the last step: changes of objects that it has to deal with, noted as they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from walras.core.clock import Clock
from walras.exchange.auctioneer import Auctioneer
from walras.exchange.book import bid_id, is_pending
from walras.exchange.demand import AGENTS, BIDS, FLEET, PODS, POOLS, Bidder
from walras.exchange.equipment import Holdings
from walras.exchange.holding import LEASES
from walras.exchange.turns import Urgent
from walras.kube.api import API, Change
from walras.kube.record import Object
from walras.tenants.controller import Key, Manager


@dataclass(frozen=True, slots=True)
class Noted:
    """Agents by name; leases that perhaps nobody has use for any more, by id; leases that have another resale
    price, by cluster, namespace and name.
    """

    agents: set[str] = field(default_factory=set)
    leases: set[str] = field(default_factory=set)
    offers: set[tuple[str, str, str]] = field(default_factory=set)


class Arrivals:
    """`holdings` gives the leases that there are; `wake` is called when a step would do something.

    `hurry` is called when the market has other rules.
    """

    def __init__(
        self,
        api: API,
        clock: Clock,
        manager: Manager,
        bidder: Bidder,
        auctioneer: Auctioneer,
        holdings: Callable[[], Holdings],
        *,
        wake: Callable[[], None],
        hurry: Callable[[], None],
    ) -> None:
        self._api, self._clock, self._manager = api, clock, manager
        self._auctioneer, self._holdings, self._wake, self._hurry = auctioneer, holdings, wake, hurry
        self.bidder = bidder
        self.noted = Noted()
        self.urgent = Urgent()

    def open(self) -> Callable[[], None]:
        """Follows them, and has every bid looked at; returns what ends that."""
        unsubscribe = [
            self._api.subscribe(AGENTS, self._on_agent),
            self._api.subscribe(POOLS, self._on_pool),
            self._api.subscribe(BIDS, self._on_bid),
            self._api.subscribe(LEASES, self._on_lease),
            self._api.subscribe(PODS, self._on_pod),
        ]
        self._revise_bids()

        def end() -> None:
            for each in unsubscribe:
                each()

        return end

    def take(self) -> Noted:
        """What was noted since this was last asked."""
        noted, self.noted = self.noted, Noted()
        return noted

    def note_all(self, accounts: Iterable[str]) -> None:
        """Have everything looked at and told again; `accounts` are the agents that have one."""
        holdings = self._holdings()
        self.noted.leases.update(holdings)
        self.noted.offers.update((each.agent, each.namespace, each.name) for each in holdings.values())
        self.noted.agents.update(accounts)
        self.noted.agents.update(
            agent["metadata"]["name"] for cluster, agent in self._api.everywhere(AGENTS) if cluster == FLEET
        )

    def _on_agent(self, change: Change) -> None:
        self.noted.agents.add(change.object["metadata"]["name"])
        self._wake()

    def _on_pool(self, change: Change) -> None:
        old, new = (change.old or {}).get("spec") or {}, change.object.get("spec") or {}
        if change.old is None or old != new:
            # New rules hold from now on, not from when the old ones would have ticked.
            self._hurry()
        if old.get("speeds") != new.get("speeds"):
            self._revise_bids()

    def _revise_bids(self) -> None:
        """Have the bidder look at every bid: they name devices by their speeds, which may be others now."""
        for cluster, bid in self._api.everywhere(BIDS):
            self._revise(cluster, bid)

    def _revise(self, cluster: str, about: Object) -> None:
        """Have the bidder look at a bid or a pod."""
        metadata = about["metadata"]
        self._manager.add(self.bidder, Key(cluster, metadata["namespace"], metadata["name"]))

    def _on_bid(self, change: Change) -> None:
        identity = bid_id(change.cluster, change.object)
        metadata = change.object["metadata"]
        if change.type == "DELETED":
            self._auctioneer.forget(identity)
            # Its pod may wait still, and then bids again.
            self._revise(change.cluster, change.object)
        elif (
            self._auctioneer.arrive(identity, change.object, self._clock.now_ms())
            and change.object["spec"].get("class") == "latency"
            and is_pending(change.object)
        ):
            self.urgent.add(change.cluster, identity)
            self._wake()
        if change.type == "DELETED" or change.object.get("status", {}).get("phase") == "Ended":
            self._look_at_leases(change.cluster, metadata["namespace"], metadata["name"])

    def _on_lease(self, change: Change) -> None:
        """A holder names the price at which it sells, another one, or none: for the next clearing."""
        old, new = (change.old or {}).get("spec") or {}, change.object["spec"]
        if old.get("resalePrice") != new.get("resalePrice"):
            metadata = change.object["metadata"]
            self.noted.offers.add((change.cluster, metadata["namespace"], metadata["name"]))

    def _on_pod(self, change: Change) -> None:
        if change.type == "DELETED":
            # Nobody looks at it again where its cluster is gone too.
            metadata = change.object["metadata"]
            self.bidder.forget(change.cluster, metadata["namespace"], metadata["name"])
        self._revise(change.cluster, change.object)
        node = change.object["spec"].get("nodeName", "")
        if node.startswith("lease-"):
            for holding in self._holdings().values():
                if holding.node == node and holding.agent == change.cluster:
                    self.noted.leases.add(holding.id)
                    self._wake()

    def _look_at_leases(self, cluster: str, namespace: str, bid: str) -> None:
        for holding in self._holdings().values():
            if (holding.agent, holding.namespace, holding.bid) == (cluster, namespace, bid):
                self.noted.leases.add(holding.id)
                self._wake()

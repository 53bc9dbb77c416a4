"""What an exchange promises, looked at by plain addition between its steps."""

from __future__ import annotations

from collections import defaultdict

from support.exchange import World
from support.live_clusters import Clusters
from walras.core.quantity import parse_duration_ms
from walras.devices.mig import state_of
from walras.exchange.book import is_pending
from walras.exchange.demand import AGENTS, BIDS, FLEET
from walras.exchange.effects import stored
from walras.exchange.holding import Holding
from walras.exchange.treasury import account_of
from walras.kube.policy import SLICES
from walras.kube.record import Object


class Promises:
    """Of one exchange after the other on the same data."""

    def __init__(self) -> None:
        # Leases that were looked at before.
        self._seen: set[str] = set()

    def check(self, world: World | Clusters) -> None:
        """After each event."""
        self.world = world
        self._check_leases()
        self._check_devices()
        self._check_money()
        self._check_bids()
        self._check_nodes()
        self._check_stored()

    def _check_leases(self) -> None:
        """A new one is one of its bid's packages, at no more than that pays."""
        for holding in self.world.exchange.holdings.values():
            if holding.id in self._seen:
                continue
            self._seen.add(holding.id)
            assert holding.terms > 1 or holding.price_micros <= holding.worth_micros
            bid = self.world.exchange._effects().bid(holding)
            if bid is not None:
                assert _is(bid["spec"]["packages"][holding.package], holding)

    def _check_devices(self) -> None:
        """What runs or drains on a device fits it, and so will what is to stay: cut or shared, not both."""
        holdings = self.world.exchange.holdings.values()
        self._fit([each for each in holdings if each.phase in ("Active", "Draining")])
        self._fit([each for each in holdings if each.phase in ("Active", "Reserved")])

    def _fit(self, holdings: list[Holding]) -> None:
        supplied = {device.id: device for device in self.world.supply.devices}
        on = defaultdict(list)
        for holding in holdings:
            assert len({share.device for share in holding.shares}) == len(holding.shares)
            for share in holding.shares:
                on[share.device].append(share)
        for name, shares in on.items():
            device = supplied[name]
            assert sum(share.milli for share in shares) <= 1000, shares
            assert sum(share.memory_mib for share in shares) <= device.memory_mib, shares
            cuts = [share.mig for share in shares if share.mig is not None]
            assert len(cuts) in (0, len(shares)), shares
            if cuts:
                assert device.mig is not None
                state_of(device.mig, cuts)

    def _check_money(self) -> None:
        """Credits are conserved; what is set aside is for leases that there are, and all of it."""
        exchange = self.world.exchange
        ledger = exchange.treasury.ledger
        assert ledger.balanced()
        assert sum(each.credits_posted - each.debits_posted for each in ledger.accounts.values()) == 0
        named = [hold for holding in exchange.holdings.values() for hold in holding.holds]
        assert sorted(named) == sorted(ledger.holds), "each lease sets its money aside once, nothing else"
        for holding in exchange.holdings.values():
            assert ledger.holds[holding.hold].debit == account_of(holding.agent)
        for account in ledger.accounts.values():
            if account.id.startswith("agent:"):
                assert account.available >= 0

    def _check_bids(self) -> None:
        """A lease has one bid, which says so; a bid has one lease at most."""
        exchange, api = self.world.exchange, self.world.api
        by_name = {(each.agent, each.name): each for each in exchange.holdings.values()}
        assert len(by_name) == len(exchange.holdings)
        for agent in self._agents():
            for bid in api.list(agent, BIDS):
                name, status = bid["metadata"]["name"], bid.get("status") or {}
                held = by_name.get((agent, status.get("lease", "")))
                if held is not None:
                    assert held.bid == name
                    assert not is_pending(bid), (name, status)
                else:
                    # Who is displaced bids again, but for a pod that had its node: that is over.
                    over = "ownerReferences" in bid["metadata"] and status.get("phase") == "Displaced"
                    over = over or agent not in exchange.treasury.budgets or self._is_leaving(agent)
                    assert is_pending(bid) or over or status.get("phase") == "Ended", (name, status)
        fx = exchange._effects()
        for holding in exchange.holdings.values():
            if fx.bid(holding) is None and not fx.pods_on(holding):
                goes = holding.id in exchange._emptying or holding.id in exchange._arrivals.noted.leases
                assert goes or holding.phase == "Draining", (
                    f"{holding.name} goes on, and nobody has use for it"
                )

    def _check_nodes(self) -> None:
        """Each lease that runs has its Node and its slices, and no Node is left of one that is over."""
        exchange, api = self.world.exchange, self.world.api
        running: dict[str, dict[str, str]] = defaultdict(dict)
        for each in exchange.holdings.values():
            if each.phase != "Reserved":
                running[each.agent][each.node] = each.id
        for agent in self._agents():
            nodes = {node["metadata"]["name"] for node in self.world.nodes(agent)}
            # A new cluster has none of those that are on their way out.
            assert nodes <= running[agent].keys()
            assert exchange._arrivals.noted.agents or all(
                lease in exchange._emptying for node, lease in running[agent].items() if node not in nodes
            )
            slices = {each["spec"]["nodeName"] for each in api.list(agent, SLICES)}
            assert slices == nodes
            known = {each.name: each for each in exchange.holdings.values() if each.agent == agent}
            for lease in self.world.leases(agent):
                held = known.get(lease["metadata"]["name"])
                assert lease["status"]["phase"] == (held.phase if held is not None else "Ended")

    def _agents(self) -> list[str]:
        return [name for name in self.world.api.clusters() if name != FLEET]

    def _is_leaving(self, agent: str) -> bool:
        found = self.world.api.find(FLEET, AGENTS, "", agent)
        return found is None or "deletionTimestamp" in found["metadata"]

    def _check_stored(self) -> None:
        """What a server would find that starts now is what this one knows."""
        assert stored(self.world.store) == self.world.exchange.holdings


def _is(package: Object, holding: Holding) -> bool:
    """Whether the lease is of the package, or of whole devices where the pool sells no parts."""
    shares, devices = holding.shares, int(package.get("devices", 1))
    counts = range(package.get("devicesMin", devices), devices + 1)
    profile, milli = package.get("migProfile", ""), package.get("milliGPU", 1000)
    return (
        len(shares) in counts
        and {share.mig.profile if share.mig else "" for share in shares} == {profile}
        and (bool(profile) or all(share.milli in (milli, 1000) for share in shares))
        and parse_duration_ms(package["term"]) == holding.term_ms
    )

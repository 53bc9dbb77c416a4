"""Of pods that share a claim, which one bids for it: two leases could not both hold it."""

from __future__ import annotations

from collections.abc import Collection

# Cluster and namespace.
Place = tuple[str, str]


class Leads:
    """Claims and pods by name in their place. Whoever comes first bids, until it leaves."""

    def __init__(self) -> None:
        self._pod_of: dict[tuple[Place, str], str] = {}
        self._claims_of: dict[tuple[Place, str], tuple[str, ...]] = {}

    def lead(self, place: Place, pod: str, claims: Collection[str]) -> bool:
        """Whether the pod is the one that bids for all of these claims: for all of them, or for none."""
        if any(self._pod_of.get((place, claim), pod) != pod for claim in claims):
            return False
        self.leave(place, pod)
        if claims:
            self._claims_of[place, pod] = tuple(claims)
            self._pod_of.update({(place, claim): pod for claim in claims})
        return True

    def leave(self, place: Place, pod: str) -> None:
        """It does not wait any more, or cannot bid."""
        for claim in self._claims_of.pop((place, pod), ()):
            del self._pod_of[place, claim]

"""Files of claims that are gone: deleted once no pod uses them, out of the way of the next by the name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from walras.runtimes.volumes import Places

# Cluster and uid.
Pod = tuple[str, str]


class Claim(NamedTuple):
    """A claim by name."""

    cluster: str
    namespace: str
    name: str


class ClaimFiles:
    """`delete` is told of whose they are and where, once nobody needs them."""

    def __init__(self, places: Places, delete: Callable[[str, Path], None]) -> None:
        self._places, self._delete = places, delete
        # Who uses them still: where they were, and of which another claim has the place.
        self._condemned: dict[Claim, set[Pod]] = {}
        self._aside: dict[Path, tuple[str, set[Pod]]] = {}

    def gone(self, claim: Claim, users: Iterable[Pod]) -> None:
        """The claim is gone. Raises OSError."""
        if found := set(users):
            self._condemned[claim] = found
        else:
            self._remove(claim)

    def came(self, claim: Claim) -> None:
        """There is a claim, perhaps by the name of another that is gone. Raises OSError."""
        users = self._condemned.pop(claim, None)
        aside = self._places.set_claim_aside(*claim) if users is not None else None
        if users is not None and aside is not None:
            self._aside[aside] = claim.cluster, users

    def left(self, pod: Pod) -> None:
        """A pod has ended. Raises OSError."""
        for claim, users in list(self._condemned.items()):
            users.discard(pod)
            if not users:
                del self._condemned[claim]
                self._remove(claim)
        for aside, (cluster, users) in list(self._aside.items()):
            users.discard(pod)
            if not users:
                del self._aside[aside]
                self._delete(cluster, aside)

    def _remove(self, claim: Claim) -> None:
        aside = self._places.set_claim_aside(*claim)
        if aside is not None:
            self._delete(claim.cluster, aside)

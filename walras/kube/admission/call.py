"""One write as admission sees it, and the answers that it has been given so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from walras.core.clock import Clock, Ids
from walras.core.errors import WalrasError
from walras.kube.access.words import Attributes
from walras.kube.context import Context, Identity
from walras.kube.patch import same
from walras.kube.record import Object
from walras.kube.registry import Resource

if TYPE_CHECKING:
    from walras.kube.api import API
    from walras.kube.transaction import Transaction

# How often a write is staged anew, for what it was told outside or because the object changed meanwhile.
ROUNDS_MAX: Final = 24
NOTES_MAX: Final = 64
NOTE_CHARACTERS_MAX: Final = 10 * 1024

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
Phase = Literal["mutating", "validating"]


@dataclass
class Call:
    """A write that is being staged in `tx`.

    `resource` is the version that the request is made in; `new` and `old` are as stored. A mutating plugin
    changes `new` in place. `options` are those of the request: CreateOptions and so on.
    """

    api: API
    tx: Transaction
    ctx: Context
    operation: Operation
    resource: Resource
    subresource: str
    namespace: str
    name: str
    new: Object | None
    old: Object | None
    options: Object = field(default_factory=dict)
    # Until when expressions about the write may run, by time.perf_counter.
    deadline: float | None = None

    def may(self, identity: Identity, attributes: Mapping[str, str], verb: str) -> tuple[bool, str]:
        """Whether somebody may do something in the cluster, and why or why not."""
        if self.ctx.access is None:
            return True, ""
        path = attributes.get("path", "")
        asked = Attributes(
            verb,
            attributes.get("group", ""),
            attributes.get("resource", ""),
            attributes.get("subresource", ""),
            attributes.get("namespace", ""),
            attributes.get("name", ""),
            path=path,
        )
        decision = self.ctx.access.decide(identity, self.ctx.cluster, asked)
        return decision.allowed, decision.reason

    def note(self, key: str, value: str) -> None:
        """Has the audit log say something of the request, as far as there is room for it."""
        notes = self.ctx.annotations
        if key in notes or len(notes) < NOTES_MAX:
            notes[key] = value[:NOTE_CHARACTERS_MAX]

    @property
    def key(self) -> str:
        """The type's name in the store, whatever version was asked for."""
        return self.resource.storage.key

    @property
    def object(self) -> Object:
        """The object that is written, or the one that goes."""
        found = self.old if self.new is None else self.new
        assert found is not None
        return found


@dataclass
class Answered:
    """What came out of asking outside: the object as it was asked about, and as it became, or why not."""

    phase: Phase
    old: Object | None
    new: Object | None
    result: Object | None
    refusal: WalrasError | None = None

    def covers(self, phase: Phase, old: Object | None, new: Object | None) -> bool:
        return phase == self.phase and _alike(self.old, old) and _alike(self.new, new)


def _alike(left: Object | None, right: Object | None) -> bool:
    return left is right or (left is not None and right is not None and same(left, right))


class Unanswered(Exception):
    """Staging cannot go on before somebody outside has been asked; it is begun anew with the answer."""

    def __init__(self, call: Call, phase: Phase, asked: list[Any]) -> None:
        super().__init__(phase)
        self.call = call
        self.phase: Phase = phase
        self.asked = asked


# That of what runs now, where it is no request: of a controller that makes what somebody's template asks for.
REVIEW: Final[ContextVar[Review | None]] = ContextVar("review", default=None)


class Review:
    """The answers from outside that one request has, and what must stay the same while it waits for more."""

    def __init__(self, ids: Ids, clock: Clock) -> None:
        self._ids = ids
        self._now_ms = clock.now_ms()
        self._given: list[str] = []
        self._next = 0
        self.answers: list[Answered] = []

    @property
    def is_endless(self) -> bool:
        """Whether so much was asked that there is no point in going on."""
        return len(self.answers) > ROUNDS_MAX

    def rewind(self) -> None:
        """Staging begins anew: names and uids come again in the order in which they came first."""
        self._next = 0

    def find(self, phase: Phase, old: Object | None, new: Object | None) -> Answered | None:
        return next((each for each in self.answers if each.covers(phase, old, new)), None)

    def now_ms(self) -> int:
        return self._now_ms

    def uid(self) -> str:
        return self._again(self._ids.uid)

    def suffix(self) -> str:
        return self._again(self._ids.suffix)

    def token(self) -> str:
        return self._again(self._ids.token)

    def _again(self, make: Callable[[], str]) -> str:
        if self._next == len(self._given):
            self._given.append(make())
        self._next += 1
        return self._given[self._next - 1]

"""How a card has to be arranged for its leases, and the steps that lead there from whatever it is. Pure.

Each step leaves the card in a state from which the rest of the way can be told anew: who is interrupted looks
at the card and asks again. No step touches an instance that is wanted, and none is asked of a card that is
arranged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from walras.core.errors import Invalid
from walras.devices.mig import MigInstance


class Technique(StrEnum):
    """What keeps the leases of a card apart; the words of `spec.devices[].enforcement`."""

    EXCLUSIVE = "exclusive"
    MIG = "mig"
    MPS = "mps"
    TIMESLICE = "timeslice"


class Action(StrEnum):
    """What is done to a card. Cutting and the changes of mode need one that nobody else uses."""

    STOP_MPS = "stop MPS"
    SHARE_FREELY = "let every process make contexts"
    DESTROY = "destroy an instance"
    MIG_OFF = "turn MIG off"
    MIG_ON = "turn MIG on"
    CREATE = "create an instance"
    SHARE_BY_MPS = "let one process make contexts"
    START_MPS = "start MPS"


class Step(NamedTuple):
    """`instance` is what is made or destroyed."""

    action: Action
    instance: MigInstance | None = None


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A card as it is. `one_process` is the compute mode in which only one process makes contexts.

    `broken` are instances without their compute instance: somebody stopped half way.
    """

    mig: bool = False
    instances: frozenset[MigInstance] = frozenset()
    broken: frozenset[MigInstance] = frozenset()
    one_process: bool = False
    mps: bool = False

    def after(self, step: Step) -> Arrangement:
        """The card when a step is done. Raises Invalid for one that the card would refuse."""
        match step:
            case Step(Action.STOP_MPS | Action.START_MPS as action):
                return replace(self, mps=action is Action.START_MPS)
            case Step(Action.SHARE_FREELY | Action.SHARE_BY_MPS as action):
                return replace(self, one_process=action is Action.SHARE_BY_MPS)
            case Step(Action.MIG_ON | Action.MIG_OFF as action):
                if self.instances or self.broken or self.mps:
                    raise Invalid("the mode of a card that is used cannot change")
                return replace(self, mig=action is Action.MIG_ON)
            case Step(Action.CREATE, MigInstance() as made) if self.mig:
                return replace(self, instances=self.instances | {made})
            case Step(Action.DESTROY, MigInstance() as gone):
                return replace(self, instances=self.instances - {gone}, broken=self.broken - {gone})
        raise Invalid(f"a card without MIG cannot {step.action}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the leases of a card need; no technique when it has none, and then it is only tidied up."""

    technique: Technique | None = None
    instances: frozenset[MigInstance] = frozenset()


def wanted(leases: Iterable[tuple[Technique, MigInstance | None]]) -> Wanted:
    """What leases need together. Raises Invalid where they need different things: no market sells that."""
    found = list(leases)
    techniques = {technique for technique, _ in found}
    if len(techniques) > 1:
        raise Invalid(f"one card cannot be shared by {' and '.join(sorted(techniques))} at a time")
    cuts = [cut for _, cut in found if cut is not None]
    if len(set(cuts)) < len(cuts):
        raise Invalid("one instance is under two leases")
    return Wanted(techniques.pop() if techniques else None, frozenset(cuts))


def steps(card: Arrangement, want: Wanted) -> tuple[Step, ...]:
    """What is to be done, in order; nothing for a card that is as it should be.

    A card without leases loses its instances and its MPS daemon and keeps its mode, which is slow to change.
    """
    todo: list[Step] = []
    by_mps, by_mig = want.technique is Technique.MPS, want.technique is Technique.MIG
    if card.mps and not by_mps:
        todo.append(Step(Action.STOP_MPS))
    if card.one_process and not by_mps:
        todo.append(Step(Action.SHARE_FREELY))
    spare = (card.instances - want.instances) | card.broken
    todo += [Step(Action.DESTROY, each) for each in sorted(spare)]
    if card.mig and not by_mig and want.technique is not None:
        todo.append(Step(Action.MIG_OFF))
    if by_mig:
        if not card.mig:
            todo.append(Step(Action.MIG_ON))
        todo += [Step(Action.CREATE, each) for each in sorted(want.instances - card.instances)]
    if by_mps and not card.one_process:
        todo.append(Step(Action.SHARE_BY_MPS))
    if by_mps and not card.mps:
        todo.append(Step(Action.START_MPS))
    return tuple(todo)

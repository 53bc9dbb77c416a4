"""Cards made what leases need, whatever they were and whoever stopped half way: the plan and the port."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cards import driver

from walras.core.errors import Invalid
from walras.devices.arrangement import Action, Arrangement, Step, Technique, Wanted, steps, wanted
from walras.devices.mig import MigInstance, free_starts, state_of
from walras.devices.mig_profiles import GEOMETRIES
from walras.runtimes.gpus.cards import CardError
from walras.runtimes.gpus.machine import Machine, Needed
from walras.runtimes.gpus.nvml import Nvml
from walras.runtimes.gpus.simulated_cards import SimulatedCards

H100 = GEOMETRIES["H100-80GB"]


@st.composite
def cuts(draw: st.DrawFn) -> frozenset[MigInstance]:
    """Instances that fit on one card."""
    found: list[MigInstance] = []
    for profile in draw(st.lists(st.sampled_from([each.name for each in H100.profiles]), max_size=7)):
        free = free_starts(H100, state_of(H100, found), profile)
        if free:
            found.append(MigInstance(profile, draw(st.sampled_from(free))))
    return frozenset(found)


@st.composite
def wishes(draw: st.DrawFn) -> Wanted:
    technique = draw(st.sampled_from([None, *Technique]))
    return Wanted(technique, draw(cuts()) if technique is Technique.MIG else frozenset())


@st.composite
def arrangements(draw: st.DrawFn) -> Arrangement:
    """Any card that there can be, also after somebody stopped half way."""
    mig = draw(st.booleans())
    made = sorted(draw(cuts())) if mig else []
    broken = frozenset(draw(st.lists(st.sampled_from(made), unique=True))) if made else frozenset()
    mps = not mig and draw(st.booleans())
    return Arrangement(mig, frozenset(made) - broken, broken, draw(st.booleans()), mps)


@given(arrangements(), wishes(), st.data())
def test_steps_lead_there_from_anywhere_and_from_wherever_they_are_interrupted(
    card: Arrangement, want: Wanted, data: st.DataObject
) -> None:
    todo = steps(card, want)
    kept = card.instances & want.instances
    for step in todo[: data.draw(st.integers(0, len(todo)))]:
        card = card.after(step)
        assert kept <= card.instances, "an instance that a lease needs is never touched"
        state_of(H100, card.instances | card.broken)
    # Here the server is killed; the next one looks at the card and goes on.
    for step in steps(card, want):
        card = card.after(step)
        state_of(H100, card.instances | card.broken)
    assert steps(card, want) == ()
    assert card.instances == want.instances, "no instance is left over"
    assert card.broken == frozenset()
    assert card.mps == card.one_process == (want.technique is Technique.MPS)
    if want.technique is not None:
        assert card.mig == (want.technique is Technique.MIG)


def test_what_leases_need_of_a_card_together_is_all_that_each_of_them_needs() -> None:
    first, second = MigInstance("1g.10gb", 0), MigInstance("1g.10gb", 1)
    assert wanted([]) == Wanted()
    assert wanted([(Technique.MPS, None)] * 2) == Wanted(Technique.MPS)
    assert wanted([(Technique.MIG, first), (Technique.MIG, second)]) == Wanted(
        Technique.MIG, frozenset({first, second})
    )


def test_leases_that_need_different_things_of_one_card_are_refused() -> None:
    with pytest.raises(Invalid, match="mig and mps"):
        wanted([(Technique.MPS, None), (Technique.MIG, MigInstance("1g.10gb", 0))])
    with pytest.raises(Invalid, match="two leases"):
        wanted([(Technique.MIG, MigInstance("1g.10gb", 0))] * 2)


@pytest.mark.parametrize(
    ("card", "step"),
    [
        (Arrangement(), Step(Action.CREATE, MigInstance("1g.10gb", 0))),
        (Arrangement(mig=True, instances=frozenset({MigInstance("1g.10gb", 0)})), Step(Action.MIG_OFF)),
        (Arrangement(mps=True), Step(Action.MIG_ON)),
    ],
)
def test_what_a_card_would_refuse_is_no_step(card: Arrangement, step: Step) -> None:
    with pytest.raises(Invalid):
        card.after(step)


class Killed(Exception):
    """The server, at that step."""


class Mortal(Machine):
    """A machine whose server is killed before or after a step, never told which."""

    def __init__(self, data: Path, dies_at: int, *, done: bool) -> None:
        super().__init__(Nvml(), data, simulated=True)
        self._left, self._done = dies_at, done

    def _do(self, uuid: str, step: Step) -> None:
        self._left -= 1
        if self._left == 0 and not self._done:
            raise Killed
        super()._do(uuid, step)
        if self._left == 0:
            raise Killed


@settings(max_examples=60)
@given(
    st.lists(st.tuples(wishes(), st.integers(1, 10), st.booleans()), min_size=1, max_size=6),
    st.lists(st.integers(1, 200), max_size=3, unique=True),
)
def test_random_leases_on_a_simulated_card_leak_no_instance_wherever_the_server_is_killed(
    stories: Sequence[tuple[Wanted, int, bool]], busy: Sequence[int]
) -> None:
    with tempfile.TemporaryDirectory() as data, driver("H100") as cards:
        for want, dies_at, done in stories:
            if want.technique is Technique.MPS:
                continue  # Daemons are processes; the other tests have them.
            mortal = Mortal(Path(data), dies_at, done=done)
            (uuid,) = mortal.cards
            try:
                mortal.arrange(uuid, Needed(want))
            except Killed:
                _legal(cards)
            heir = Machine(Nvml(), Path(data), simulated=True)
            access = heir.arrange(uuid, Needed(want))
            _legal(cards)
            assert set(access) - {None} == want.instances
            names = [each.uuid for each in access.values()]
            assert len(set(names)) == len(names), "no two leases reach the same instance"
            _refuses_under(cards, heir, uuid, busy)


def _legal(cards: SimulatedCards) -> None:
    with cards.state() as state:
        state_of(H100, [each.cut for each in state.cards[0].instances])


def _refuses_under(cards: SimulatedCards, here: Machine, uuid: str, pids: Sequence[int]) -> None:
    """While programs run, nothing is taken from under them, whatever is asked for."""
    with cards.state() as state:
        made = [each.id for each in state.cards[0].instances]
        before = [each.cut for each in state.cards[0].instances]
    if not made or not pids:
        return
    for pid in pids:
        cards.run(0, pid, 100, instance=made[0])
    with pytest.raises(CardError) as refused:
        here.arrange(uuid, Needed(Wanted(Technique.EXCLUSIVE)))
    assert refused.value.busy
    with cards.state() as state:
        assert before[0] in [each.cut for each in state.cards[0].instances if each.computes]
    for pid in pids:
        cards.end(pid)

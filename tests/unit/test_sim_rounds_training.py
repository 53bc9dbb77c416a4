"""Batch sizes that change, what that does to a job's steps, and how long it takes alone."""

from __future__ import annotations

from itertools import groupby

import pytest

from walras.core.errors import NotFound
from walras.sim.rounds.adaptation import next_batch_size, planned_batch_sizes
from walras.sim.rounds.training import Training
from walras.sim.traces.gavel import Mode, Profile, Throughputs, TraceJob

# A step takes a second at any batch size.
RATES: dict[Profile, float] = {("v100", "ResNet-18", size, 1): 1.0 for size in (128, 256)}


def resnet18(mode: Mode, *, epochs: int, batch: int = 128) -> Training:
    """An epoch is 391 steps with 128 samples each, 196 with 256."""
    return Training(TraceJob(0, "ResNet-18", batch, 391 * epochs, 1, 0.0, mode), Throughputs(RATES), "v100")


def runs(sizes: list[int]) -> list[tuple[int, int]]:
    return [(size, len(list(same))) for size, same in groupby(sizes)]


def test_by_the_noise_scale_a_job_doubles_once_at_a_time_an_epoch_ahead() -> None:
    """LM from 10 on one GPU doubles at epochs 11, 21 and 41."""
    assert next_batch_size("gns", "LM", 10, 10, 1, 9) == 10
    assert next_batch_size("gns", "LM", 10, 10, 1, 10) == 20
    assert next_batch_size("gns", "LM", 10, 10, 1, 60) == 20
    assert next_batch_size("gns", "LM", 10, 40, 1, 40) == 80
    assert next_batch_size("gns", "LM", 10, 80, 1, 99) == 80


def test_accordion_trains_small_in_critical_regimes_and_as_large_as_can_be_outside() -> None:
    """ResNet-50's are the first 10 of every 30 epochs."""
    sizes = [next_batch_size("accordion", "ResNet-50", 32, 32, 1, epoch) for epoch in range(45)]
    assert runs(sizes) == [(32, 10), (128, 20), (32, 10), (128, 5)]


@pytest.mark.parametrize(
    ("mode", "model", "first"), [("static", "LM", 5), ("accordion", "Transformer", 16), ("gns", "LM", 80)]
)
def test_some_never_change(mode: Mode, model: str, first: int) -> None:
    assert {next_batch_size(mode, model, first, first, 1, epoch) for epoch in range(300)} == {first}


def test_a_plan_by_the_noise_scale_ends_with_the_first_size_once_it_doubled_twice() -> None:
    assert runs(planned_batch_sizes("gns", "LM", 10, 1, 25)) == [(10, 11), (20, 10), (40, 3), (10, 1)]
    assert runs(planned_batch_sizes("gns", "LM", 10, 1, 15)) == [(10, 11), (20, 4)]


def test_a_plan_of_accordion_keeps_the_first_size_for_three_tenths() -> None:
    """Of 50 epochs those to 15, though only 10 are critical."""
    assert runs(planned_batch_sizes("accordion", "LM", 10, 1, 50)) == [(10, 16), (80, 34)]


def test_alone_a_job_takes_its_planned_epochs() -> None:
    """ResNet-18 doubles at epoch 11: 11 epochs of 50,000 / 128 s, 9 of 50,000 / 256 s."""
    assert resnet18("gns", epochs=20).alone_s == pytest.approx(11 * 390.625 + 9 * 195.3125)
    assert resnet18("gns", epochs=20).planned_left_s == pytest.approx(11 * 390.625 + 9 * 195.3125)


def test_a_larger_batch_comes_a_round_after_it_was_asked_for_and_keeps_the_epochs() -> None:
    """With 10.5 epochs done, 11 count as done: 11 x 196 steps of 20 x 391 / 2."""
    training = resnet18("gns", epochs=20)
    assert not training.train(4_105, 4_105.0)
    training.look()
    assert (training.batch_size, training.steps) == (128, 7_820)
    assert not training.train(1, 1.0)
    assert (training.batch_size, training.done_steps, training.steps) == (256, 11 * 196, 3_910)


def test_a_batch_size_that_was_not_measured_is_not_taken() -> None:
    rates = Throughputs({("v100", "ResNet-18", 64, 1): 1.0, ("v100", "ResNet-18", 256, 1): 1.0})
    training = Training(TraceJob(0, "ResNet-18", 64, 782 * 12, 1, 0.0, "gns"), rates, "v100")
    training.train(782 * 11, 1.0)
    training.look()
    training.train(1, 1.0)
    assert (training.batch_size, training.steps) == (64, 782 * 12)


def test_half_as_long_again_as_planned_is_the_end() -> None:
    training = resnet18("static", epochs=1)
    assert not training.train(10, 585.0)
    assert training.train(10, 1.0)


def test_what_is_not_known_is_named() -> None:
    with pytest.raises(NotFound, match=r'"ResNet-18 \(batch size 32\)" on 1 v100'):
        resnet18("static", epochs=1, batch=32)
    rates = Throughputs({("v100", "GPT", 8, 1): 1.0})
    with pytest.raises(NotFound, match='epochs of model "GPT" are not known'):
        Training(TraceJob(0, "GPT", 8, 10, 1, 0.0), rates, "v100")

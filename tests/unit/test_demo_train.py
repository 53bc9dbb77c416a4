"""The trainer: it learns, and a worker that goes and comes back loses nothing and counts nothing twice."""

from __future__ import annotations

import copy
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import train
from corpus import Document
from train import BATCH, Checkpoint, Model, as_bytes, batches

TEXT = as_bytes([Document("d", "the quick brown fox jumps over the lazy dog; " * 20)])


def run(folder: Path, tokens: int, worker: str = "one") -> Checkpoint:
    return train.train(folder, worker, TEXT, tokens, merge_every_s=0.02, rate=0.2, seed=1)


def test_steps_lower_the_loss() -> None:
    model, source = Model.fresh(1), batches(TEXT, np.random.default_rng(1))
    losses = [model.step(*next(source), rate=0.2) for _ in range(60)]
    assert losses[0] == pytest.approx(np.log(256), rel=0.2)
    assert np.mean(losses[-5:]) < 0.7 * losses[0]


def test_training_goes_on_from_the_checkpoint_with_its_loss_and_its_count(tmp_path: Path) -> None:
    first = run(tmp_path, 20 * BATCH)
    again = run(tmp_path, first.tokens + 20 * BATCH)
    assert again.tokens >= first.tokens + 20 * BATCH
    assert again.loss < first.loss
    stored = Checkpoint.load(tmp_path / "checkpoint.npz", seed=1)
    assert (stored.tokens, stored.loss) == (again.tokens, again.loss)


def test_a_worker_that_comes_when_all_is_done_counts_nothing(tmp_path: Path) -> None:
    first = run(tmp_path, 5 * BATCH)
    assert run(tmp_path, 5 * BATCH, "late").tokens == first.tokens


def test_tokens_of_two_workers_add_up(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    for worker, tokens in (("a", 300), ("b", 200), ("a", 50)):
        shared = Checkpoint.load(path, seed=1)
        shared.merge(worker, copy.deepcopy(shared.model), tokens, 1.0, now=100.0)
        shared.save(path)
    assert Checkpoint.load(path, seed=1).tokens == 550


def test_a_merge_weighs_a_worker_by_its_part_of_those_alive() -> None:
    shared, local = Checkpoint(Model.fresh(1)), Model.fresh(2)
    before = shared.model.parameters["hidden"].copy()
    shared.seen = {"other": 95.0, "long gone": 10.0}
    shared.merge("one", local, 1, 1.0, now=100.0)
    expected = (before + local.parameters["hidden"]) / 2
    np.testing.assert_allclose(shared.model.parameters["hidden"], expected, rtol=1e-5, atol=1e-7)
    assert set(shared.seen) == {"other", "one"}


def test_a_notice_ends_training_with_a_checkpoint_of_all_that_was_done(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    notice = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    # Until train() listens for it the signal must not end the tests.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    notice.start()
    try:
        done = run(tmp_path, 10**12)
    finally:
        notice.cancel()
        signal.signal(signal.SIGTERM, before)
    assert done.tokens > 0
    assert Checkpoint.load(tmp_path / "checkpoint.npz", seed=1).tokens == done.tokens

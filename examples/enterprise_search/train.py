"""Trains a byte-level language model (Bengio et al., JMLR 2003) elastically: workers come and go.

All workers of a Job share one checkpoint in a volume. Each trains some steps on its own, then merges its
parameters into the checkpoint under a lock (local SGD with elastic averaging, Zhang et al., NeurIPS 2015).
SIGTERM is the notice that the lease ends: merge, and exit. A worker that is killed loses one round at most.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import corpus
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

CONTEXT = 16
EMBEDDING = 24
HIDDEN = 192
BATCH = 128
SYMBOLS = 256
# Workers that merged within this time share the average.
ALIVE_S = 10.0


@dataclass
class Model:
    """A multilayer perceptron from CONTEXT bytes to the next one."""

    parameters: dict[str, Floats]

    @classmethod
    def fresh(cls, seed: int) -> Model:
        random = np.random.default_rng(seed)

        def matrix(*shape: int) -> Floats:
            scaled: Floats = (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
            return scaled

        return cls(
            {
                "embedding": matrix(SYMBOLS, EMBEDDING),
                "hidden": matrix(CONTEXT * EMBEDDING, HIDDEN),
                "hidden_bias": np.zeros(HIDDEN, np.float32),
                "output": matrix(HIDDEN, SYMBOLS),
                "output_bias": np.zeros(SYMBOLS, np.float32),
            }
        )

    def step(self, contexts: Bytes, targets: Bytes, rate: float) -> float:
        """One step of SGD; the batch's cross-entropy in nats a byte before it."""
        p = self.parameters
        rows = np.arange(len(targets))
        inputs = p["embedding"][contexts].reshape(len(targets), -1)
        hidden = np.tanh(inputs @ p["hidden"] + p["hidden_bias"])
        logits = hidden @ p["output"] + p["output_bias"]
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        odds /= odds.sum(axis=1, keepdims=True)
        loss = float(-np.log(odds[rows, targets] + 1e-9).mean())
        odds[rows, targets] -= 1
        odds /= len(targets)
        back = (odds @ p["output"].T) * (1 - hidden * hidden)
        inner = (back @ p["hidden"].T).reshape(len(targets), CONTEXT, EMBEDDING)
        p["output"] -= rate * (hidden.T @ odds)
        p["output_bias"] -= rate * odds.sum(axis=0)
        p["hidden"] -= rate * (inputs.T @ back)
        p["hidden_bias"] -= rate * back.sum(axis=0)
        np.subtract.at(p["embedding"], contexts, (rate * inner).astype(np.float32))
        return loss


@dataclass
class Checkpoint:
    """What the workers share: parameters, tokens trained, the loss, and who merged when."""

    model: Model
    tokens: int = 0
    loss: float = float(np.log(SYMBOLS))
    seen: dict[str, float] = field(default_factory=dict)

    def merge(self, worker: str, local: Model, tokens: int, loss: float, now: float) -> None:
        """Average a worker's parameters in, by its part of the workers that are alive."""
        self.seen = {name: at for name, at in self.seen.items() if now - at < ALIVE_S} | {worker: now}
        part = np.float32(1 / len(self.seen))
        for name, value in self.model.parameters.items():
            self.model.parameters[name] = value + part * (local.parameters[name] - value)
        self.tokens += tokens
        self.loss = loss

    def save(self, path: Path) -> None:
        """Replace the file at once: a reader sees the old or the new one, whatever dies in between."""
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                tokens=np.int64(self.tokens),
                loss=np.float64(self.loss),
                workers=np.array(list(self.seen), dtype=np.str_),
                times=np.array(list(self.seen.values()), dtype=np.float64),
                **{f"p_{name}": value for name, value in self.model.parameters.items()},  # type: ignore[arg-type]
            )
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, seed: int) -> Checkpoint:
        """The stored one, or a fresh start."""
        if not path.exists():
            return cls(Model.fresh(seed))
        with np.load(path) as stored:
            model = Model({name[2:]: stored[name].copy() for name in stored.files if name.startswith("p_")})
            seen = dict(zip(stored["workers"].tolist(), stored["times"].tolist(), strict=True))
            return cls(model, int(stored["tokens"]), float(stored["loss"]), seen)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def batches(text: Bytes, random: np.random.Generator) -> Iterator[tuple[Bytes, Bytes]]:
    offsets = np.arange(CONTEXT)
    while True:
        starts = random.integers(0, len(text) - CONTEXT - 1, BATCH)
        yield text[starts[:, None] + offsets], text[starts + CONTEXT]


def as_bytes(documents: Sequence[corpus.Document]) -> Bytes:
    """The text to train on."""
    return np.frombuffer("\n".join(each.text for each in documents).encode(), dtype=np.uint8)


def train(
    folder: Path, worker: str, text: Bytes, target: int, merge_every_s: float, rate: float, seed: int
) -> Checkpoint:
    """Train until the checkpoint has `target` tokens or SIGTERM comes."""
    told: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    path = folder / "checkpoint.npz"
    with locked(folder):
        shared = Checkpoint.load(path, seed)
    print(f"{worker}: resuming at {shared.tokens} tokens, loss {shared.loss:.3f}", flush=True)
    source = batches(text, np.random.default_rng([seed, shared.tokens, zlib.crc32(worker.encode())]))
    while not told and shared.tokens < target:
        local, tokens, loss = shared.model, 0, shared.loss
        until = time.monotonic() + merge_every_s
        while not told and time.monotonic() < until:
            contexts, targets = next(source)
            loss = 0.95 * loss + 0.05 * local.step(contexts, targets, rate)
            tokens += BATCH
        with locked(folder):
            shared = Checkpoint.load(path, seed)
            shared.merge(worker, local, tokens, loss, time.time())
            shared.save(path)
        print(f"{worker}: {shared.tokens} tokens, loss {shared.loss:.3f}", flush=True)
    if told:
        print(f"{worker}: notice came; checkpoint at {shared.tokens} tokens", flush=True)
    return shared


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=Path, required=True, help="as corpus.dump writes them")
    parser.add_argument("--folder", type=Path, required=True, help="the volume that holds the checkpoint")
    parser.add_argument("--tokens", type=int, default=10**12, help="stop when this many are trained")
    parser.add_argument("--merge-every", type=float, default=1.0, help="seconds between merges")
    parser.add_argument("--rate", type=float, default=0.2, help="learning rate")
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    worker = os.environ.get("HOSTNAME", "worker")
    text = as_bytes(corpus.load(told.documents))
    train(told.folder, worker, text, told.tokens, told.merge_every, told.rate, told.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())

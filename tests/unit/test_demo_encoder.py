"""The encoder against what sentences mean, and against the tokenizer's and the model's own facts."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from corpus import Document, dump, load, shard
from encoder import WIDTH, Encoder
from search import Index


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder()


def test_a_paraphrase_is_near_and_an_unrelated_sentence_is_far(encoder: Encoder) -> None:
    question, paraphrase, unrelated = encoder.encode(
        [
            "How do I read a file line by line?",
            "What is the way to go through the lines of a file?",
            "The cat slept all afternoon on the warm roof.",
        ]
    )
    assert question @ paraphrase > 0.7
    assert abs(question @ unrelated) < 0.2


def test_vectors_are_of_unit_length_and_do_not_depend_on_their_neighbours(encoder: Encoder) -> None:
    texts = ["one", "a rather longer text about nothing at all"]
    together = encoder.encode(texts)
    assert together.shape == (2, WIDTH)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(encoder.encode(texts[1:])[0], together[1], atol=1e-6)
    assert encoder.encode([]).shape == (0, WIDTH)


def test_a_very_long_text_is_cut_and_not_refused(encoder: Encoder) -> None:
    assert np.isfinite(encoder.encode(["word " * 5000])).all()


def test_an_index_that_was_stored_finds_the_same_document(encoder: Encoder, tmp_path: Path) -> None:
    documents = [
        Document("json.dumps", "Serialize an object to a JSON formatted string."),
        Document("os.remove", "Delete a file from the file system."),
        Document("math.sqrt", "Return the square root of a number."),
    ]
    stored = tmp_path / "index.npz"
    file = io.BytesIO()
    Index.build(encoder, documents).save(file)
    stored.write_bytes(file.getvalue())
    hits = Index.load(stored).search(encoder, "how can I get rid of a file?")
    assert hits[0]["name"] == "os.remove"


def test_documents_survive_a_file_and_every_one_has_one_owner(tmp_path: Path) -> None:
    documents = [Document(f"name{number}", f"text äö {number}") for number in range(60)]
    path = tmp_path / "documents.json"
    path.write_text(dump(documents), encoding="utf-8")
    assert load(path) == documents
    parts = [shard(documents, part, 3) for part in range(3)]
    assert sorted((each for part in parts for each in part), key=documents.index) == documents
    assert all(parts)

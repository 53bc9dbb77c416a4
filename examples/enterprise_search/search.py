"""Answers questions over one owner's documents: embeds the question, returns the nearest documents.

GET /healthz says when it is ready; GET /search?q=TEXT gives {"hits": [{"name", "text", "score"}]}. Documents
and their embeddings come in one file, so that a replica starts in a fraction of a second.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, urlsplit

import corpus
import numpy as np
from encoder import Encoder, Floats

QUESTION_CHARACTERS_MAX = 2000
HITS = 3


class Index:
    """Documents and their vectors, row by row."""

    def __init__(self, documents: Sequence[corpus.Document], vectors: Floats) -> None:
        self._documents, self._vectors = documents, vectors

    @classmethod
    def build(cls, encoder: Encoder, documents: Sequence[corpus.Document]) -> Index:
        return cls(documents, encoder.encode([each.text for each in documents]))

    @classmethod
    def load(cls, path: Path) -> Index:
        """What `save` wrote."""
        with np.load(path) as stored:
            pairs = zip(stored["names"].tolist(), stored["texts"].tolist(), strict=True)
            return cls([corpus.Document(name, text) for name, text in pairs], stored["vectors"])

    def save(self, file: IO[bytes]) -> None:
        names = np.array([each.name for each in self._documents], dtype=np.str_)
        texts = np.array([each.text for each in self._documents], dtype=np.str_)
        np.savez_compressed(file, names=names, texts=texts, vectors=self._vectors)

    def search(self, encoder: Encoder, question: str) -> list[dict[str, object]]:
        """The HITS nearest documents, nearest first."""
        scores = self._vectors @ encoder.encode([question])[0]
        best = np.argsort(-scores)[:HITS]
        return [
            {
                "name": self._documents[i].name,
                "text": self._documents[i].text,
                "score": round(float(scores[i]), 4),
            }
            for i in best
        ]


def handler(encoder: Encoder, index: Index) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/healthz":
                self._answer(200, {"ok": True})
                return
            question = parse_qs(parts.query).get("q", [""])[0]
            if parts.path != "/search" or not question or len(question) > QUESTION_CHARACTERS_MAX:
                self._answer(
                    404, {"error": f"ask /search?q=TEXT of at most {QUESTION_CHARACTERS_MAX} characters"}
                )
                return
            self._answer(200, {"hits": index.search(encoder, question)})

        def _answer(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing a request."""

    return Handler


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True, help="documents and embeddings")
    parser.add_argument("--port", type=int, default=8080)
    told = parser.parse_args()
    stop: list[bool] = []
    # As the first process of its pod it has to ask for the signal to be told at all.
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    encoder = Encoder()
    server = HTTPServer(("127.0.0.1", told.port), handler(encoder, Index.load(told.index)))
    server.timeout = 0.1
    print("ready", flush=True)
    while not stop:
        server.handle_request()
    return 0


if __name__ == "__main__":
    sys.exit(main())

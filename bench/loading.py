"""The load generator of `bench/load`, built with Go, and orders to it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "load"


def build(folder: Path) -> Path:
    """The program, built into `folder`. Raises SystemExit where there is no Go."""
    if shutil.which("go") is None:
        raise SystemExit("the load comes from a Go program: install Go 1.25 or later")
    program = folder / "load"
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=SOURCE, check=True)
    return program


class Load:
    """A running load generator against one server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def order(self, op: str, **told: Any) -> dict[str, Any]:
        """What the order came to. Raises AssertionError when a request failed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": op, "method": "GET", "status": 200, **told}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "error" not in answer, (op, answer["error"])
        return answer


@contextmanager
def load(program: Path, url: str, ca_file: str) -> Iterator[Load]:
    """A load generator for the server at `url`, which ends with the context."""
    with subprocess.Popen(
        [str(program), url, ca_file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Load(process)
        finally:
            process.kill()

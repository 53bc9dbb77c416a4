"""What holds a pod's network in another's engine, where that engine does not do as it should."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from walras.runtimes.engine import holding
from walras.runtimes.engine.client import Engine, EngineError


class Broken(Engine):
    """Makes containers and starts none."""

    def __init__(self) -> None:
        super().__init__("/none")
        self.containers: set[str] = set()

    async def call(self, method: str, path: str, **_: Any) -> Any:
        if path == "/containers/create":
            self.containers.add("made")
            return {"Id": "made"}
        if method == "DELETE":
            self.containers.remove(path.rpartition("/")[2])
            return None
        raise EngineError("no", 500)


def test_a_holder_that_does_not_start_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: str) -> None:
        pass

    monkeypatch.setattr(holding, "_run", nothing)
    monkeypatch.setattr(holding, "_tool", lambda name: f"/bin/{name}")

    async def run() -> None:
        engine, place = Broken(), tmp_path / "networks" / "pod"
        with pytest.raises(EngineError, match="no"):
            await holding.hold(engine, 0, place, hostname="p", parent="", labels={})
        assert not engine.containers and not place.exists()
        await engine.close()

    asyncio.run(run())

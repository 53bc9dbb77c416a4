"""A lease's devices as a CDI specification (cdi.k8s.io 0.6.0), a file for each node.

It says what the process runtime does by itself: variables, device files, directories of MPS. The driver's
libraries are not in it; NVIDIA's own specification or the image brings them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from walras.runtimes.environment import Gpu

VERSION: Final = "0.6.0"
KIND: Final = "cdi.walras.dev/gpu"


def specification(node: str, gpu: Gpu) -> Mapping[str, Any]:
    """The device `cdi.walras.dev/gpu=NODE`."""
    mounts = [
        {
            "hostPath": each.source,
            "containerPath": each.target,
            "options": ["bind", "ro" if each.read_only else "rw", "nosuid", "nodev"],
        }
        for each in gpu.mounts
    ]
    edits = {
        "env": [f"{name}={value}" for name, value in sorted(gpu.env.items())],
        "deviceNodes": [{"path": path} for path in gpu.devices],
        **({"mounts": mounts} if mounts else {}),
    }
    return {
        "cdiVersion": VERSION,
        "kind": KIND,
        "devices": [{"name": node, "containerEdits": edits}],
    }


def write(folder: Path, node: str, gpu: Gpu) -> Path:
    """Writes the file whole or not at all; returns its path. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    path = folder / f"{node}.json"
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(specification(node, gpu))))
    partial.replace(path)
    return path


def keep_only(folder: Path, nodes: Iterable[str]) -> None:
    """Removes the files of all other nodes."""
    kept = {f"{node}.json" for node in nodes}
    for path in folder.glob("*.json"):
        if path.name not in kept:
            with suppress(FileNotFoundError):
                path.unlink()

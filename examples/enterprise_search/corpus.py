"""The documents: docstrings of the installed Python standard library, always the same, split by owner."""

from __future__ import annotations

import ast
import hashlib
import json
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

CHARACTERS_MAX = 400
WORDS_MIN = 6


@dataclass(frozen=True, slots=True)
class Document:
    """A docstring and where it stands, such as "json.dumps"."""

    name: str
    text: str


def documents(limit: int = 0) -> list[Document]:
    """All of them by name, or the first `limit`. Parses the whole library: about a second."""
    found: list[Document] = []
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.glob("*.py")) + sorted(root.glob("*/__init__.py")):
        found += _of_file(path)
        if limit and len(found) >= limit:
            return found[:limit]
    return found


def shard(everything: Sequence[Document], part: int, parts: int) -> list[Document]:
    """The documents of owner `part` of `parts`: by hash of the name, so that owners have different ones."""
    return [each for each in everything if _owner(each.name, parts) == part]


def dump(some: Sequence[Document]) -> str:
    """As a file that `load` reads, so that a pod need not parse the library again."""
    return json.dumps([asdict(each) for each in some])


def load(path: Path) -> list[Document]:
    """What `dump` wrote."""
    return [Document(**each) for each in json.loads(path.read_text(encoding="utf-8"))]


def _owner(name: str, parts: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % parts


def _of_file(path: Path) -> Iterator[Document]:
    module = path.parent.name if path.name == "__init__.py" else path.stem
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            text = " ".join((ast.get_docstring(node) or "").split())[:CHARACTERS_MAX]
            if len(text.split()) >= WORDS_MIN:
                name = module if isinstance(node, ast.Module) else f"{module}.{node.name}"
                yield Document(name, text)

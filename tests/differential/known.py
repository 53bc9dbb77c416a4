"""Differences that are known: the table of docs/reference/differences.md."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from differential.compare import Difference

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "differences.md"


@dataclass(frozen=True, slots=True)
class Known:
    """A row of the table: signatures like `where`, with messages like `real` and `embedded`."""

    where: str
    real: str
    embedded: str

    def covers(self, difference: Difference) -> bool:
        return (
            _like(self.where, difference.signature)
            and _like(self.real, str(difference.real))
            and _like(self.embedded, str(difference.embedded))
        )


def _like(pattern: str, text: str) -> bool:
    """Only * is a wildcard; brackets stand for themselves."""
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def table(page: Path = PAGE) -> list[Known]:
    """The rows: pattern of the signature, of what the real server says, of what this one says, why."""
    rows = []
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            where, real, embedded = (cell.replace("\0", "|").strip("`") for cell in cells[:3])
            rows.append(Known(where, real, embedded))
    return rows

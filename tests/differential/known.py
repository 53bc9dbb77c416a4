"""Differences that are known: the table of docs/reference/differences.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from differential.compare import Difference

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "differences.md"
_SHOWN: Final = 120


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


@dataclass(slots=True)
class Table:
    """The rows, and what each has hidden so far: differences by their signature."""

    rows: tuple[Known, ...]
    hidden: dict[Known, dict[str, list[Difference]]] = field(default_factory=dict)

    def covers(self, difference: Difference) -> bool:
        """Whether some row says so. All that do are noted, so that a wide one does not idle a narrow one."""
        saying = [row for row in self.rows if row.covers(difference)]
        for row in saying:
            self.hidden.setdefault(row, {}).setdefault(difference.signature, []).append(difference)
        return bool(saying)

    def lines(self, most: int) -> list[str]:
        """What each row hid, those that hid least first: how often, and one of each frequent signature."""
        by_row = {row: sorted(self.hidden.get(row, {}).values(), key=len, reverse=True) for row in self.rows}
        lines = []
        for row, groups in sorted(by_row.items(), key=lambda each: sum(map(len, each[1]))):
            lines.append(f"{sum(map(len, groups))} x {row.where} | {row.real} | {row.embedded}")
            for first, *more in groups[:most]:
                texts = (str(first.real)[:_SHOWN], str(first.embedded)[:_SHOWN])
                lines.append(f"    {len(more) + 1} x {first.signature}: {texts[0]} | {texts[1]}")
        return lines


NONE: Final = Table(())


def table(page: Path = PAGE) -> Table:
    """The rows: pattern of the signature, of what the real server says, of what this one says, why."""
    rows = []
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            where, real, embedded = (cell.replace("\0", "|").strip("`") for cell in cells[:3])
            rows.append(Known(where, real, embedded))
    return Table(tuple(rows))

"""The documentation as tests read it: pages, fenced blocks, tables and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"

_FENCE: Final = re.compile(r"^(?P<indent> *)```(?P<language>[a-z]*)\s*$")
_NOT_RUN: Final = re.compile(r"^<!-- not run: (?P<why>.+) -->$")
_NEEDS: Final = re.compile(r"^<!-- needs the runtime (?P<handler>\w+) -->$", re.M)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is that of its fence, `not_run` why its commands are only to read."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str = ""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[str]:
        """What a reader types: the `$ ` lines of a console block with what they continue on, or a script."""
        if self.language == "bash":
            return [f"( set -e\n{self.text})"]
        found: list[str] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append(line.removeprefix("$ "))
            elif found and found[-1].endswith("\\"):
                found[-1] += "\n" + line
        return found

    @property
    def file_name(self) -> str:
        """The file that a manifest is to be saved as, from its first line `# NAME.yaml`; "" without one."""
        first = self.text.partition("\n")[0]
        return first.removeprefix("# ") if re.fullmatch(r"# [\w.-]+\.yaml", first) else ""


def pages() -> list[Path]:
    """README.md, CONTRIBUTING.md and everything below docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def needed_runtimes(page: Path) -> list[str]:
    """Handlers of the runtimes without which the page's commands have nothing to run on."""
    return _NEEDS.findall(page.read_text())


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page in order."""
    found: list[Block] = []
    lines = page.read_text().splitlines()
    at, not_run = 0, ""
    while at < len(lines):
        if marker := _NOT_RUN.match(lines[at]):
            not_run = marker["why"]
        elif fence := _FENCE.match(lines[at]):
            end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
            text = "\n".join(line.removeprefix(fence["indent"]) for line in lines[at + 1 : end])
            found.append(Block(page, at + 1, fence["language"], text + "\n", not_run))
            at, not_run = end, ""
        elif lines[at].strip():
            not_run = ""
        at += 1
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```\s*$", "", page.read_text(), flags=re.M | re.S)


def links(page: Path) -> list[str]:
    """Targets of the links of a page that lead to files of this repository."""
    return [link for link in _LINK.findall(prose(page)) if "://" not in link and not link.startswith("#")]


def code(page: Path) -> list[str]:
    """What stands in backquotes outside fenced blocks."""
    return _CODE.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors that a renderer gives the headings of a page."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.M):
        words = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(words.replace(" ", "-"))
    return found


def section(page: Path, title: str) -> str:
    """The text below a heading, up to the next of its level or above. Raises KeyError."""
    text = page.read_text()
    start = re.search(rf"^(#+) {re.escape(title)}$", text, re.M)
    if start is None:
        raise KeyError(f"{page.name} has no section {title!r}")
    rest = text[start.end() :]
    end = re.search(rf"^#{{1,{len(start[1])}}} ", rest, re.M)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """The cells of every table row in a text, without headings and rules."""
    found = []
    lines = text.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|") and not line.startswith("|-") and before.startswith("|"):
            # A bar inside backquotes is written \| in Markdown.
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            found.append([cell.strip().replace("\\|", "|") for cell in cells])
    return found

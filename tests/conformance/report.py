"""Ginkgo's JSON reports as what was run, and as the page docs/reference/conformance.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from conformance import reasons

_PAGES: Final = Path(__file__).parents[2] / "docs" / "reference"
_AREA: Final = re.compile(r"\[sig-([a-z-]+)\]")
_TAGS: Final = re.compile(r"\s*\[[^\]]*\]")
_REASON_MAX: Final = 160
_COUNT: Final = re.compile(r"^\| ([a-z-]+) \| (\d+) \| (\d+) \|$", re.MULTILINE)
_FAILED: Final = re.compile(r"^\| ([a-z-]+) \| (.*) \| ((?:\\.|[^|])*) \|$", re.MULTILINE)

_HEAD: Final = """# Conformance

`scripts/conformance` runs specs of Kubernetes' own conformance suite, unmodified, from the release that the
real server of the tests is of, against the operator's cluster of a server that it starts. Its node and the
pods on it are simulated by kwok, in which nothing runs, as for the real server (`scripts/conformance
--real`): the selection is of the specs that do not look into containers. A real kube-apiserver with its
controller manager and scheduler passes 108 of them.
"""
_CONTAINED: Final = """# Conformance of what needs containers

`scripts/conformance --containers` runs specs of Kubernetes' own conformance suite, unmodified, against an
agent's cluster of a server that runs pods as containers of Podman. These are all conformance specs of
sig-apps, sig-auth, sig-cli, sig-network, sig-node, sig-scheduling and sig-storage that disrupt no nodes, and
those of sig-api-machinery that need pods or a cluster to themselves; `--area apps` runs one of these areas
and leaves the others as they are here. These are the last results of runs in parts, on two
processors; a spec that failed for want of time was run again.

Image registries are not asked. agnhost, kitten, nautilus and nonewprivs are built from the release's own
sources, on programs of Debian instead of Alpine Linux. The others are stand-ins of the same names: busybox is
Debian's, with bash as its shell, nginx is Debian's nginx-light, pause is agnhost's, nonroot and
glibc-dns-testing are the same root again.
"""


@dataclass(frozen=True, slots=True)
class Spec:
    """One spec that was run, and why it failed, "" where it passed."""

    area: str
    name: str
    reason: str


def names(report: Path) -> list[str]:
    """The full names of the specs that a dry run selected."""
    suites = json.loads(report.read_text())
    return [_full(each) for suite in suites for each in suite["SpecReports"] or () if _is_run(each)]


def _is_run(each: Any) -> bool:
    return each["State"] not in ("skipped", "pending") and each["LeafNodeType"] == "It"


def _full(each: Any) -> str:
    """As a focus sees it."""
    return " ".join([*(each["ContainerHierarchyTexts"] or ()), each["LeafNodeText"]])


def specs(report: Path) -> list[Spec]:
    """The specs that a run selected, in its order."""
    found = []
    for suite in json.loads(report.read_text()):
        for each in suite["SpecReports"] or ():
            if not _is_run(each):
                continue
            area, name = _AREA.search(_full(each)), _TAGS.sub("", _full(each)).strip()
            passed = each["State"] == "passed"
            reason = "" if passed else _reason((each.get("Failure") or {}).get("Message", each["State"]))
            found.append(Spec(area[1] if area else "", name, reason))
    return found


def _reason(message: str) -> str:
    """What a failure says, in a line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return " ".join(lines)


def write(found: Iterable[Spec], *, contained: bool) -> None:
    """Writes the page of the specs on simulated nodes, or of those with containers.

    Of the latter it keeps the areas that were not run.
    """
    name, head = ("conformance-containers.md", _CONTAINED) if contained else ("conformance.md", _HEAD)
    path, rows = _PAGES / name, Rows()
    if contained:
        rows.read(path.read_text())
    rows.add(found)
    path.write_text(rows.page(head))


@dataclass
class Rows:
    """What a page's tables say: by area how many passed of how many, and what failed."""

    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    failed: list[tuple[str, str, str]] = field(default_factory=list)

    def read(self, page: str) -> None:
        """Takes in what a page says."""
        counts, _, failed = page.partition("## What fails")
        for area, passed, run in _COUNT.findall(counts):
            self.counts[area] = (int(passed), int(run))
        self.counts.pop("all", None)
        self.failed += [row for row in _FAILED.findall(failed) if row[0] in self.counts]

    def add(self, found: Iterable[Spec]) -> None:
        """Takes in what was run, in place of what was known of the same areas."""
        specs = list(found)
        areas = {spec.area for spec in specs}
        self.failed = [row for row in self.failed if row[0] not in areas]
        for area in areas:
            results = [not spec.reason for spec in specs if spec.area == area]
            self.counts[area] = (sum(results), len(results))
        self.failed += [(s.area, _cell(s.name), _cell(_said(s))) for s in specs if s.reason]

    def page(self, head: str) -> str:
        """How many passed by area, then each that failed with its reason."""
        lines = [head, "| area | passed | of |", "|---|---|---|"]
        lines += [f"| {area} | {passed} | {run} |" for area, (passed, run) in sorted(self.counts.items())]
        passed, run = (sum(column) for column in zip(*self.counts.values(), strict=True))
        lines += [f"| all | {passed} | {run} |", ""]
        if self.failed:
            lines += ["## What fails", "", "| area | spec | why |", "|---|---|---|"]
            lines += [f"| {area} | {name} | {why} |" for area, name, why in sorted(self.failed)]
            lines.append("")
        return "\n".join(lines)


def _said(spec: Spec) -> str:
    """Why it failed: in our words where they are known, else in its own."""
    text = reasons.why(spec.name) or spec.reason
    return text if len(text) <= _REASON_MAX else f"{text[:_REASON_MAX]}..."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")

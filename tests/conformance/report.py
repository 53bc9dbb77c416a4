"""Ginkgo's JSON reports as what was run, and as the page docs/reference/conformance.md."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_PAGES: Final = Path(__file__).parents[2] / "docs" / "reference"
_AREA: Final = re.compile(r"\[sig-([a-z-]+)\]")
_TAGS: Final = re.compile(r"\s*\[[^\]]*\]")
_REASON_MAX: Final = 160

_HEAD: Final = """# Conformance

`scripts/conformance` runs specs of Kubernetes' own conformance suite, unmodified, from the release that the
real server of the tests is of, against the operator's cluster of a server that it starts. Its node and the
pods on it are simulated by kwok, in which nothing runs, as for the real server (`scripts/conformance
--real`): the selection is of the specs that do not look into containers. A real kube-apiserver with its
controller manager and scheduler passes 108 of them.
"""
_CONTAINED: Final = """# Conformance of what needs containers

`scripts/conformance --containers` runs specs of Kubernetes' own conformance suite, unmodified, against an
agent's cluster of a server that runs pods as containers of Podman. The image of most of their pods, agnhost,
is built from the same release. These are the specs of admission and conversion webhooks, whose webhook is a
pod behind a Service, and those of sig-auth, sig-cli and sig-scheduling. Two want an image that is only in a
registry (nautilus), one runs `kubectl proxy`, which wants `--append-server-path` here, and one looks for the
issuer of tokens where pods cannot reach it.
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
    """Writes the page of the specs on simulated nodes, or of those with containers."""
    name, head = ("conformance-containers.md", _CONTAINED) if contained else ("conformance.md", _HEAD)
    (_PAGES / name).write_text(page(found, head))


def page(found: Iterable[Spec], head: str) -> str:
    """The page: how many passed by area, then each that failed with its reason."""
    found = sorted(found, key=lambda spec: (spec.area, spec.name))
    passed, run = Counter(s.area for s in found if not s.reason), Counter(s.area for s in found)
    lines = [head, "| area | passed | of |", "|---|---|---|"]
    lines += [f"| {area} | {passed[area]} | {count} |" for area, count in sorted(run.items())]
    lines += [f"| all | {passed.total()} | {run.total()} |", ""]
    failed = [spec for spec in found if spec.reason]
    if failed:
        lines += ["## What fails", "", "| area | spec | says |", "|---|---|---|"]
        lines += [f"| {s.area} | {_cell(s.name)} | {_cell(_short(s.reason))} |" for s in failed]
        lines.append("")
    return "\n".join(lines)


def _short(text: str) -> str:
    return text if len(text) <= _REASON_MAX else f"{text[:_REASON_MAX]}..."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")

"""`scripts/conformance`: run Kubernetes' conformance specs against the embedded server, or the real one."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from support import reference

from conformance import report, stage

# Focus and skip of the two runs whose specs need neither containers nor webhooks.
SELECTIONS: Final = (
    (
        r"\[sig-api-machinery\].*\[Conformance\]",
        r"AdmissionWebhook|ConversionWebhook|Aggregator|\[Serial\]|\[Slow\]",
    ),
    (
        r"(API operations|CRUD Tests|ifecycle|ResourceQuota|PodTemplate|SubjectReview|"
        r"ServiceAccount.*(update|delete|mount)|Events|Lease|RuntimeClass|LimitRange).*\[Conformance\]",
        r"sig-api-machinery|Hook|Variable|\[Serial\]|\[Slow\]|mount an API token|OIDC",
    ),
)
# With containers, by area: of api-machinery what the page of simulated nodes does not have, of others all.
CONTAINED: Final = {
    "api-machinery": (
        r"\[sig-api-machinery\].*"
        r"(AdmissionWebhook|ConversionWebhook|FieldSelectors|\[Serial\]|\[Slow\]).*\[Conformance\]",
        r"\[Disruptive\]",
    ),
    **{
        area: (rf"\[sig-{area}\].*\[Conformance\]", r"\[Disruptive\]")
        for area in ("apps", "auth", "cli", "network", "node", "scheduling", "storage")
    },
}
WORKERS: Final = 8
# What a spec says that wants the cluster to itself.
_ALONE: Final = "[Serial]"
_OPTIONS: Final = (
    "--provider=skeleton", "--disable-log-dump", "--allowed-not-ready-nodes=10", "--ginkgo.no-color",
)  # fmt: skip


def main() -> int:
    """0 where every spec passed, 1 where one did not, 2 without the programs that it takes."""
    parser = argparse.ArgumentParser(prog="scripts/conformance", description=__doc__)
    parser.add_argument("--focus", help="a regular expression: only specs like it, and no page is written")
    parser.add_argument("--skip", default=r"\[Serial\]|\[Slow\]", help="of --focus, what to leave out")
    parser.add_argument("--containers", action="store_true", help="with pods that run, in Podman")
    parser.add_argument(
        "--area",
        action="append",
        choices=CONTAINED,
        help="with --containers, only these; the page keeps others",
    )
    parser.add_argument("--real", action="store_true", help="against the real server")
    options = parser.parse_args()
    needed: tuple[str, ...] = ()
    if options.real:
        needed = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    needed += ("agnhost", "images") if options.containers else ("kwok",)
    why = reference.missing("e2e.test", *needed)
    if why:
        print(f"scripts/conformance: {why}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        work = Path(folder)
        opened = stage.real if options.real else stage.contained if options.containers else stage.embedded
        with opened(work) as kubeconfig:
            selections: Sequence[tuple[str, str]] = SELECTIONS
            if options.containers:
                selections = [CONTAINED[area] for area in options.area or CONTAINED]
            if options.focus:
                selections = ((options.focus, options.skip),)
            names = [name for each in selections for name in _names(kubeconfig, work, *each)]
            alone = [name for name in names if _ALONE in name]
            found = _run(kubeconfig, work, [name for name in names if _ALONE not in name], WORKERS)
            found += _run(kubeconfig, work, alone, 1)
    if not options.focus and not options.real:
        report.write(found, contained=options.containers)
    return 1 if any(spec.reason for spec in found) else 0


def _names(kubeconfig: Path, work: Path, focus: str, skip: str) -> list[str]:
    """The full names of the specs that a focus and a skip select."""
    found = work / "selected.json"
    words = (f"--ginkgo.focus={focus}", f"--ginkgo.skip={skip}", "--ginkgo.dry-run")
    with (work / "selected.log").open("w") as log:
        subprocess.run(
            [*_command(kubeconfig), *words, f"--ginkgo.json-report={found}"],
            stdout=log, stderr=log, cwd=work, check=False,
        )  # fmt: skip
    return report.names(found)


def _command(kubeconfig: Path) -> list[str]:
    return [str(reference.folder() / "e2e.test"), f"--kubeconfig={kubeconfig}", *_OPTIONS]


def _run(kubeconfig: Path, work: Path, names: Sequence[str], workers: int) -> list[report.Spec]:
    """Prints ginkgo's own accounts of a run, and returns its specs.

    A spec that fails has waited for minutes, so up to so many processes take their share of them.
    """
    processes = []
    for number in range(workers):
        share = names[number::workers]
        if not share:
            continue
        focus = "|".join(re.escape(name) for name in share)
        words = (f"--ginkgo.focus={focus}", f"--ginkgo.json-report={work / f'{workers}-{number}.json'}")
        with (work / f"{workers}-{number}.log").open("w") as log:
            process = subprocess.Popen([*_command(kubeconfig), *words], stdout=log, stderr=log, cwd=work)
        processes.append((number, process))
    found = []
    for number, process in processes:
        process.wait()
        lines = (work / f"{workers}-{number}.log").read_text().splitlines()
        ran = next((i for i, line in enumerate(lines) if line.startswith("Ran ")), max(0, len(lines) - 20))
        print("\n".join(lines[ran : ran + 2]), flush=True)
        found += report.specs(work / f"{workers}-{number}.json")
    for spec in found:
        if spec.reason:
            print(f"[sig-{spec.area}] {spec.name}: {spec.reason}", flush=True)
    passed = sum(not spec.reason for spec in found)
    print(f"{len(found)} specs, {passed} passed, {len(found) - passed} failed", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())

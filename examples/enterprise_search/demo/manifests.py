"""What the agents apply: Deployments that search, Jobs that train and embed."""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Object = dict[str, Any]

PROGRAMS = Path(__file__).parents[1]
PORT = 8080
_ENVIRONMENT = [
    {"name": name, "value": "1"}
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE")
]


@dataclass(frozen=True, slots=True)
class Share:
    """What a pod asks of a device, in thousandths; 1000 is asked for as a whole nvidia.com/gpu."""

    milli: int

    @property
    def limits(self) -> Object:
        if self.milli == 1000:
            return {"nvidia.com/gpu": "1"}
        return {"walras.dev/milligpu": str(self.milli)}


@dataclass(frozen=True, slots=True)
class Worth:
    """What a pod says of itself to the market. A queue does not read it."""

    job_class: str
    max_price: str
    restart_cost: str = ""
    term: str = "5s"

    @property
    def annotations(self) -> dict[str, str]:
        found = {
            "walras.dev/class": self.job_class,
            "walras.dev/max-price": self.max_price,
            "walras.dev/term": self.term,
        }
        return found | ({"walras.dev/restart-cost": self.restart_cost} if self.restart_cost else {})


def config_map(name: str, text: Mapping[str, str], binary: Mapping[str, bytes] | None = None) -> Object:
    encoded = {key: base64.b64encode(value).decode() for key, value in (binary or {}).items()}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": dict(text),
        **({"binaryData": encoded} if encoded else {}),
    }


def programs() -> Object:
    """The worker programs, to be mounted as files."""
    names = ("corpus.py", "encoder.py", "search.py", "train.py", "embed.py")
    return config_map("programs", {name: (PROGRAMS / name).read_text() for name in names})


def claim() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "work"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def search(name: str, replicas: int, share: Share, worth: Worth) -> Object:
    """A Deployment of search pods."""
    labels = {"app": "search", "deployment": name}
    spec = _pod("search.py", ["--index", "/mnt/corpus/index.npz", "--port", str(PORT)], share)
    spec["terminationGracePeriodSeconds"] = 2
    spec["containers"][0]["ports"] = [{"containerPort": PORT}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels, "annotations": worth.annotations}, "spec": spec},
        },
    }


def job(
    name: str, program: str, arguments: Sequence[str], parallelism: int, share: Share, worth: Worth
) -> Object:
    """A Job over the agent's volume whose pods say themselves when it is done."""
    spec = _pod(
        program, ["--documents", "/mnt/corpus/documents.json", "--folder", "/mnt/volume", *arguments], share
    )
    spec["restartPolicy"] = "Never"
    spec["volumes"].append({"name": "work", "persistentVolumeClaim": {"claimName": "work"}})
    spec["containers"][0]["volumeMounts"].append({"name": "work", "mountPath": "/mnt/volume"})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "parallelism": parallelism,
            "backoffLimit": 6,
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": worth.annotations},
                "spec": spec,
            },
        },
    }


def _pod(program: str, arguments: Sequence[str], share: Share) -> Object:
    return {
        "containers": [
            {
                "name": "main",
                "image": "host",
                "command": [sys.executable, f"/mnt/programs/{program}", *arguments],
                "env": _ENVIRONMENT,
                "resources": {"limits": share.limits},
                "volumeMounts": [
                    {"name": "programs", "mountPath": "/mnt/programs"},
                    {"name": "corpus", "mountPath": "/mnt/corpus"},
                ],
            }
        ],
        "volumes": [
            {"name": "programs", "configMap": {"name": "programs"}},
            {"name": "corpus", "configMap": {"name": "corpus"}},
        ],
    }

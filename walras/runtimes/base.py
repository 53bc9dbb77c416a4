"""The port between pods and what runs them: containers in, processes and exit statuses out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from walras.core.errors import InternalError
from walras.kube.serve.ports import Session, Stream, Wish

__all__ = [
    "ContainerSpec", "ExitStatus", "Limits", "Mount", "Output", "PodRef", "Process", "Runtime", "Session",
    "StartError", "Stream", "Wish",
]  # fmt: skip

# Called in the loop's thread with raw bytes as they come, in any pieces.
Output = Callable[[Stream, bytes], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a group of processes may use; None is no limit of its own."""

    cpu_milli: int | None = None
    memory_bytes: int | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory or file of this machine that a container sees at `target` (absolute, normalised)."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class PodRef:
    """The pod a container belongs to: all of its containers share one network and one set of limits."""

    cluster: str
    node: str
    uid: str
    name: str


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One attempt at running one container."""

    pod: PodRef
    name: str
    attempt: int
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"
    mounts: tuple[Mount, ...] = ()
    # Device files to pass through, such as "/dev/nvidia0".
    devices: tuple[str, ...] = ()
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a container ended. `code` is its exit code, 128+n for signal n."""

    code: int
    oom_killed: bool = False


class StartError(InternalError):
    """The container's program could not be started; the message says why, as runc would."""


class Process(Protocol):
    """A started container."""

    @property
    def id(self) -> str:
        """Unique on this machine, without a scheme."""

    def signal(self, signum: int) -> None:
        """Signals the main process alone; nothing happens when it has ended."""

    async def kill(self) -> None:
        """SIGKILL to every process of the container; returns when none is left."""

    async def enter(self, argv: tuple[str, ...], wish: Wish) -> Session:
        """Runs another program in the container, as its user and within its limits. Raises StartError."""

    def attach(self, wish: Wish) -> Session:
        """What the main process says from now on."""

    async def wait(self) -> ExitStatus:
        """The main process's end, after everything it left behind was killed and its output delivered."""


class Runtime(Protocol):
    """Runs containers on behalf of nodes. Every method is called from one event loop."""

    @property
    def separates_users(self) -> bool:
        """Whether each agent's programs run under a uid of their own (`sandbox.uid_of`), once open."""

    async def open(self) -> None:
        """Gets ready; ends whatever an earlier run of the same server left behind."""

    async def close(self) -> None:
        """Kills everything that is left."""

    def set_node(self, cluster: str, node: str, limits: Limits) -> None:
        """Makes the node's group or changes its limits. Limits that cannot be enforced are in `checks`."""

    async def remove_node(self, cluster: str, node: str) -> None:
        """Kills every process of the node at once; returns when none is left."""

    def cpu_ms(self, cluster: str, node: str) -> int:
        """CPU time that the node's pods have used so far; never falls while the node exists."""

    async def start(self, spec: ContainerSpec, output: Output, pod_limits: Limits) -> Process:
        """Returns once the program runs. Raises StartError."""

    async def remove_pod(self, pod: PodRef) -> None:
        """Kills what is left of the pod and forgets its group and network; fine when there is none."""

    async def dial(self, pod: PodRef, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a port that the pod listens on. Raises ServiceUnavailable."""

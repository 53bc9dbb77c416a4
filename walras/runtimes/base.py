"""The port between pods and what runs them: containers in, processes and exit statuses out."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from walras.core.errors import InternalError
from walras.kube.serve.ports import Session, Stream, Wish

__all__ = [
    "KILLED",
    "ContainerSpec", "CreateError", "DiskImages", "ExitStatus", "Grouped", "ImageError", "Images", "Limits",
    "Mount", "NoRuntime", "Output", "Pausable", "PodRef", "PodRuntime", "Process", "Resize", "ResizeError",
    "Runtime", "Security", "Session", "StartError", "Stream", "Traits", "Wish", "no_runtime",
]  # fmt: skip

# Short, so that a share is smooth at the scale of one request.
PERIOD_US: Final = 20_000
# The exit code of a program that was killed.
KILLED: Final = 128 + signal.SIGKILL

# Called in the loop's thread with raw bytes as they come, in any pieces.
Output = Callable[[Stream, bytes], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a group of processes may use; None is no limit of its own.

    `weight_milli`: what it weighs when CPU is short, None for as much as `cpu_milli`. CPU is measured out in
    periods of `period_us`, or longer ones where a share is too small for that.
    """

    cpu_milli: int | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    weight_milli: int | None = None
    period_us: int = PERIOD_US

    @property
    def weighs_milli(self) -> int | None:
        """None for what a group weighs by default."""
        return self.cpu_milli if self.weight_milli is None else self.weight_milli


@dataclass(frozen=True, slots=True)
class Resize:
    """Limits of something that runs: those that hold, and those that are to hold."""

    was: Limits
    to: Limits


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory or file of this machine that a container sees at `target` (absolute, normalised)."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class PodRef:
    """The pod a container belongs to: all of its containers share one network and one set of limits.

    `handler` says which runtime is its own, as its RuntimeClass does; "" is the server's default.
    """

    cluster: str
    node: str
    uid: str
    name: str
    handler: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others: a backup brings uids to other clusters."""
        return self.cluster, self.uid


@dataclass(frozen=True, slots=True)
class Security:
    """What a container's securityContext and its pod's ask for together; None is what the image says."""

    user: int | None = None
    group: int | None = None
    groups: tuple[int, ...] = ()
    # Capabilities without "CAP_"; "ALL" among those dropped.
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    read_only_root: bool = False
    no_new_privileges: bool = False
    non_root: bool = False


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One attempt at running one container.

    Without a `command` an image's own entrypoint gets the `args`. `working_dir` "" is the image's own.
    """

    pod: PodRef
    name: str
    attempt: int
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"
    mounts: tuple[Mount, ...] = ()
    # All that containers of the pod mount from, of which a machine has to know before it starts.
    volumes: tuple[Mount, ...] = ()
    # Device files to pass through, such as "/dev/nvidia0".
    devices: tuple[str, ...] = ()
    # Descriptors of the server's that the program gets as `sandbox.INHERITED_FD` and the next.
    inherited: tuple[int, ...] = ()
    limits: Limits = Limits()
    args: tuple[str, ...] = ()
    image: str = ""
    # What `Images` found or pulled for `image`; "" for a runtime without images.
    image_id: str = ""
    security: Security = Security()
    # Whether the main process has a terminal, and an input that `attach` leads to.
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole command line; empty when the container names no command."""
        return (*self.command, *self.args) if self.command else ()


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a container ended. `code` is its exit code, 128+n for signal n."""

    code: int
    oom_killed: bool = False


class StartError(InternalError):
    """The container's program could not be started; the message says why, as runc would."""


class CreateError(InternalError):
    """The container cannot be made; the message says why, `reason` is the kubelet's word for it.

    `again`: another try may go better.
    """

    def __init__(self, message: str, *, reason: str = "CreateContainerError", again: bool = False) -> None:
        super().__init__(message)
        self.reason, self.again = reason, again


class ImageError(InternalError):
    """The image cannot be had. `reason` is why the container waits, in the kubelet's words."""

    def __init__(self, message: str, reason: str = "ErrImagePull") -> None:
        super().__init__(message)
        self.reason = reason


class ResizeError(InternalError):
    """Limits cannot be changed now; the message says why, as the kubelet would."""


class NoRuntime(InternalError):
    """The server has no runtime for a pod's handler."""


def no_runtime(handler: str) -> NoRuntime:
    """In the words of containerd."""
    return NoRuntime(f'failed to get sandbox runtime: no runtime for "{handler}" is configured')


class Images(Protocol):
    """Where a runtime's images are. What the kubelet makes of it is in `pulling`."""

    async def find(self, pod: PodRef, image: str, keys: tuple[Mapping[str, str], ...]) -> str:
        """The image's id, with a digest; "" when it is not here or not for this pod's agent.

        `keys` are what the pod may show a registry, as in `pull`. Raises ImageError.
        """

    async def pull(self, pod: PodRef, image: str, keys: tuple[Mapping[str, str], ...]) -> tuple[str, int]:
        """Fetches the image: its id, and its size in bytes.

        `keys`: {"username", "password"} of the registry, tried in turn; none is anonymous. Raises ImageError.
        """


@runtime_checkable
class DiskImages(Images, Protocol):
    """Images that files can be had from."""

    async def copy_out(self, pod: PodRef, image_id: str, directory: str, into: Path, bytes_max: int) -> None:
        """The one file in a directory of a known image, as `into`. Raises ImageError, OSError."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What the containers of a runtime are made of.

    `scheme` is of their ids, as in "process://1234". `env` is where their environment begins. Without
    `images` a container needs a command, and the runtime's own file system stands at the system's places.
    `networked`: its pods are put into the network namespace that `network.networks` has for them, or each
    has a device in its agent's as a `machine`. `slow`: what whoever waits for them should know, told when
    they start. `counts_memory`: what they write to a volume in memory is charged to their pod.
    `sees_mounts`: what the server mounts, they can be given.
    `fixed`: why what a container has cannot be changed while it runs, "" where it can.
    """

    scheme: str
    env: Mapping[str, str] = field(default_factory=dict)
    images: Images | None = None
    networked: bool = False
    machine: bool = False
    slow: str = ""
    counts_memory: bool = False
    sees_mounts: bool = False
    fixed: str = ""


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

    def disk_bytes(self) -> int | None:
        """Bytes on this machine's disks that are its own: written over its image, or in files without a name.

        None for more than anybody needs. Blocks for as long as it takes.
        """

    async def wait(self) -> ExitStatus:
        """The main process's end, after everything it left behind was killed and its output delivered."""


@runtime_checkable
class Pausable(Protocol):
    """A process whose whole machine can be held."""

    async def pause(self, paused: bool) -> None:
        """Holds the machine, or lets it go on. Raises ServiceUnavailable."""


@runtime_checkable
class Grouped(Protocol):
    """A process with a control group on this machine."""

    @property
    def path(self) -> tuple[str, ...]:
        """Of the group, below all that the server made."""


class PodRuntime(Protocol):
    """Runs containers. Every method is called from one event loop."""

    @property
    def separates_users(self) -> bool:
        """Whether each agent's programs run under a uid of their own (`sandbox.uid_of`), once open."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What whoever starts the server has to know before running programs of others, once open."""

    async def open(self) -> None:
        """Gets ready; ends whatever an earlier run of the same server left behind."""

    async def close(self) -> None:
        """Kills everything that is left."""

    def traits(self, pod: PodRef) -> Traits:
        """What the pod's containers are made of. Raises NoRuntime."""

    async def start(self, spec: ContainerSpec, output: Output, pod_limits: Limits) -> Process:
        """Returns once the program runs. Raises StartError and CreateError."""

    async def remove_pod(self, pod: PodRef) -> None:
        """Kills what is left of the pod and forgets its group and network; fine when there is none."""

    async def forget_agent(self, cluster: str) -> None:
        """The agent is gone, and nothing of it is for one that comes by its name. Raises StorageError."""

    async def dial(self, pod: PodRef, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a port that the pod listens on. Raises ServiceUnavailable."""


class Runtime(PodRuntime, Protocol):
    """Runs containers on behalf of nodes."""

    def set_node(self, cluster: str, node: str, limits: Limits) -> None:
        """Makes the node's group or changes its limits. Limits that cannot be enforced are in `checks`."""

    def resize(self, pod: PodRef, whole: Resize, parts: Mapping[str, tuple[Process, Resize]]) -> None:
        """Gives a pod, and containers of it by their names, other limits of CPU and memory.

        Only where its traits do not say that they are fixed. Raises ResizeError; some may be changed then.
        """

    async def remove_node(self, cluster: str, node: str) -> None:
        """Kills every process of the node at once; returns when none is left."""

    def cpu_ms(self, cluster: str, node: str) -> int:
        """CPU time that the node's pods have used so far; never falls while the node exists."""

    def pids(self, cluster: str, node: str) -> list[int]:
        """The processes of the node's pods, as this machine numbers them; none for a node that is unknown."""

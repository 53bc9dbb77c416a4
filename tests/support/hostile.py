"""Programs that try to get out, to see others or to take everything: the same for every runtime.

A runtime joins by a `Ground` in `GROUNDS`. Each attempt is a shell script, as images may have little more
than a shell; it must have begun, so that a script that cannot run is no success of the sandbox.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from support.runtimes import BUSYBOX, IMAGE, container_offer, hearing, import_image
from walras.runtimes.base import ContainerSpec, ExitStatus, Limits, Mount, PodRef, Process, Runtime
from walras.runtimes.engine.runtime import ContainerRuntime
from walras.runtimes.network.networks import Networks
from walras.runtimes.process import ProcessRuntime
from walras.runtimes.sandbox import uid_of
from walras.runtimes.shares import Shares

ESCAPED: Final = "ESCAPED"
BEGAN: Final = "began"
TREASURE: Final = "treasure-of-the-victim"
VICTIM, THIEF = "victim", "thief"
UNLIMITED: Final = Limits()
# A thief that waits for nothing takes this long at most.
ATTEMPT_S: Final = 30.0

# Whether a TCP connection to $1:$2 is taken, by whatever the image has.
_REACH: Final = r"""
reach() {
  if command -v python3 >/dev/null 2>&1; then
    python3 -c 'import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)' "$1" "$2"
  elif command -v bash >/dev/null 2>&1; then
    timeout 2 bash -c "exec 3<>/dev/tcp/$1/$2"
  else
    nc -w 2 "$1" "$2" -e true
  fi 2>/dev/null
}
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """`script` calls `won` when it has what it came for.

    Filled in: {data}, the server's folder; {volume}, of the victim's; {pid}, of the victim's program;
    {address} and {port}, where the host listens; {victim}, the address of the victim's pod, which listens on
    port 7070.
    """

    name: str
    script: str

    def __str__(self) -> str:
        return self.name

    def filled(self, values: Mapping[str, object]) -> str:
        """The whole script."""
        script = self.script
        for name, value in values.items():
            script = script.replace("{" + name + "}", str(value))
        return f"won() {{ echo {ESCAPED}; }}{_REACH}echo {BEGAN}; {{ {script}; }} 2>&1; exit 0"


_SOCKET: Final = "from socket import *; socket"
_EACH: Final = "for each in"
_NULL: Final = "of=/dev/null count=1"
ATTEMPTS: Final = (
    Attempt("reads the server's folder", "cat {data}/secret && won"),
    Attempt("lists the server's folder", '[ -n "$(ls -A {data} 2>/dev/null)" ] && won'),
    Attempt("reads another agent's volume", "cat {volume}/secret && won"),
    Attempt("reads it through a link", "ln -s {volume}/secret /tmp/link; cat /tmp/link && won"),
    Attempt(
        "reads it through /proc", "for each in /proc/[0-9]*/root; do cat $each{volume}/secret && won; done"
    ),
    Attempt("reads root's passwords", "cat /etc/shadow && won"),
    Attempt("reads another's environment", "cat /proc/[0-9]*/environ | grep -a 'treasure[-]of' && won"),
    Attempt(
        "reads another's command line", "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep 'sleep[ ]4711' && won"
    ),
    Attempt("signals another's process", "kill -9 {pid} && won"),
    Attempt("enters another's namespaces", "nsenter -t {pid} -m -n true && won"),
    Attempt("reaches the host's loopback", "reach 127.0.0.1 {port} && won"),
    Attempt("reaches the host by its address", "reach {address} {port} && won"),
    Attempt("reaches another agent's pod", "reach {victim} 7070 && won"),
    Attempt("asks the metadata service", "reach 169.254.169.254 80 && won"),
    Attempt("opens a raw socket", f"python3 -c '{_SOCKET}(AF_INET, SOCK_RAW, 1)' && won"),
    Attempt("opens a packet socket", f"python3 -c '{_SOCKET}(AF_PACKET, SOCK_RAW)' && won"),
    Attempt("makes a network device", "ip link add x type dummy && won"),
    Attempt("takes an address", "ip addr add 192.0.2.1/32 dev lo && won"),
    Attempt("mounts the host's disks", f"{_EACH} /dev/[svx]d?* /dev/nvme*; do mount $each /tmp && won; done"),
    Attempt("makes a device file", f"mknod /tmp/disk b 8 0 && dd if=/tmp/disk {_NULL} && won"),
    Attempt("reads memory", f"dd if=/dev/mem {_NULL} && won; dd if=/proc/kcore {_NULL} && won"),
    Attempt("sets the core pattern", "echo '|/bin/true' > /proc/sys/kernel/core_pattern && won"),
    Attempt("pulls the trigger", "echo h > /proc/sysrq-trigger && won"),
    Attempt(
        "writes to the control groups",
        "for each in $(find /sys/fs/cgroup -name cgroup.procs); do echo 1 > $each && won; done",
    ),
    Attempt("becomes root", "su -c 'cat {data}/secret' && won; sudo -n true && won"),
    # One that sets it to what it is: whether it may is told by its complaint alone.
    Attempt("sets the clock", 'date -s "@$(date +%s)" 2>&1 >/dev/null | grep -q . || won'),
    Attempt(
        "mounts within a user namespace",
        "unshare -Urm sh -c 'mount --bind / /tmp && cat /tmp{data}/secret' && won",
    ),
    Attempt(
        "unmounts what hides",
        "umount -l {data} && won; unshare -Urm sh -c 'umount -l {data}; cat {data}/secret' && won",
    ),
    Attempt("breaks out of its root", "unshare -Ur chroot /proc/1/root cat {data}/secret && won"),
)


@dataclass
class Ground:
    """A runtime on trial. `dress` gives a container what the runtime needs of it, such as an image.

    `python`: whether containers have python3, without which attempts that need it are left out.
    """

    runtime: Runtime
    data_dir: Path
    dress: Callable[[ContainerSpec], ContainerSpec] = lambda spec: spec
    python: bool = True
    networks: Networks | None = None
    said: dict[str, bytearray] = field(default_factory=dict)

    async def begin(
        self,
        cluster: str,
        *command: str,
        env: Mapping[str, str] | None = None,
        limits: Limits = UNLIMITED,
        mounts: tuple[Mount, ...] = (),
        pod: str = "",
    ) -> Process:
        """A container of the agent's, in a pod that it has for itself. What it says is in `said`."""
        said = self.said.setdefault(cluster, bytearray())
        ref = await self._joined(cluster, pod)
        path = f"{sys.prefix}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        spec = ContainerSpec(
            ref, "main", 0, command, {"PATH": path, **(env or {})}, limits=limits, mounts=mounts
        )
        return await self.runtime.start(self.dress(spec), hearing(said), limits)

    async def _joined(self, cluster: str, name: str) -> PodRef:
        """A pod of the agent's, in its network where there is one."""
        ref = PodRef(cluster, "base", f"uid-{cluster}{name}", cluster)
        if self.networks is not None and self.runtime.traits(ref).networked:
            await self.networks.join(ref, machine=self.runtime.traits(ref).machine)
        return ref

    async def victim(self) -> Process:
        # The first pod of each agent has the same address; the victim's is not the thief's own.
        await self._joined(VICTIM, "-first")
        listen = "if command -v python3; then python3 -m http.server 7070; else httpd -f -p 7070; fi"
        script = f"({listen}) >/dev/null 2>&1 & echo {BEGAN}; sleep 4711; :"
        return await self.begin(VICTIM, "sh", "-c", script, env={"SECRET": TREASURE})

    def address(self, cluster: str) -> str:
        """Of the agent's pod; nobody's where it has none."""
        ref = PodRef(cluster, "base", f"uid-{cluster}", cluster)
        found = self.networks.of(ref) if self.networks is not None else None
        return found.address if found is not None else "192.0.2.1"

    def volume(self, cluster: str) -> Path:
        """A volume of the agent's with a secret in it, as kubelet makes them."""
        path = self.data_dir / "agents" / cluster / "volumes" / "default" / "data"
        path.mkdir(parents=True)
        (path / "secret").write_text(TREASURE)
        if self.runtime.separates_users:
            os.chown(path, uid_of(cluster), uid_of(cluster))
        return path

    async def hears(self, cluster: str, text: str) -> None:
        """Returns when the agent's container has said so."""
        async with asyncio.timeout(ATTEMPT_S):
            while text.encode() not in self.said.get(cluster, b""):  # noqa: ASYNC110  only it knows when
                await asyncio.sleep(0.01)

    async def ends(self, process: Process) -> ExitStatus:
        async with asyncio.timeout(ATTEMPT_S):
            return await process.wait()


def _process(data_dir: Path) -> Ground:
    networks = Networks()
    runtime = ProcessRuntime(data_dir, shares=Shares(data_dir, networks=networks))
    return Ground(runtime, data_dir, networks=networks)


def _container(data_dir: Path) -> Ground:
    networks = Networks()
    shares = Shares(data_dir, one_path=True, networks=networks)
    runtime = ContainerRuntime(data_dir, program="runc", shares=shares)
    imported: list[str] = []

    def dress(spec: ContainerSpec) -> ContainerSpec:
        if not imported:
            import_image(runtime, IMAGE)
            imported.append(IMAGE)
        return replace(spec, image=IMAGE, image_id=IMAGE, working_dir="")

    return Ground(runtime, data_dir, dress, python=False, networks=networks)


# By the name of the runtime: what makes its ground, None where it is not to be had on this machine.
GROUNDS: Final[dict[str, Callable[[Path], Ground] | None]] = {
    "process": _process if shutil.which("bwrap") else None,
    "container": _container if BUSYBOX and container_offer().make else None,
}


def on(name: str, data_dir: Path, story: Callable[[Ground], Awaitable[None]]) -> None:
    """Plays the story on the runtime's ground, which it finds open and leaves to be closed."""
    make = GROUNDS[name]
    assert make is not None, "tests of runtimes that are not here are skipped"
    play(make(data_dir), story)


def play(ground: Ground, story: Callable[[Ground], Awaitable[None]]) -> None:
    async def run() -> None:
        await ground.runtime.open()
        try:
            await story(ground)
        finally:
            await ground.runtime.close()
            if ground.networks is not None:
                await ground.networks.close()

    asyncio.run(run())


@contextmanager
def listening() -> Iterator[tuple[str, int]]:
    """An address of this machine, not loopback where it has another, and a port that is listened on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.254", 9))
            address = str(probe.getsockname()[0])
        except OSError:
            address = "127.0.0.1"
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield address, server.getsockname()[1]

"""The first process of a guest: starts programs for the server, tells of their output and their end."""

from __future__ import annotations

import fcntl
import marshal
import os
import select
import struct
import termios
from contextlib import suppress
from functools import partial
from typing import Any

from walras.runtimes.vm.guest import programs, roots, wire
from walras.runtimes.vm.guest.streams import Loop, Relay

_ENDING_S, _IDLE_S = 0.01, 1.0
_CONTROLLERS = "+memory +pids +cpu"
_DRAIN_MAX = 64
_SHARED_MEMORY = "/dev/shm"  # noqa: S108


class Container:
    """What the programs of one container have in common."""

    def __init__(self, name: str, root: str, group: str, env: dict[str, str], directory: str) -> None:
        self.name, self.root, self.group = name, root, group
        self.env, self.directory = env, directory


class Program:
    """One that runs, or is on its way to; `main` is what the container is for."""

    def __init__(self, container: Container, group: str, relay: Relay, pid: int, *, main: bool) -> None:
        self.container, self.group, self.relay, self.pid, self.main = container, group, relay, pid, main
        self.terminal = -1
        self.started = False
        self.status: int | None = None
        self.said = b""


class Agent:
    def __init__(self, port: int) -> None:
        self._port, self._frames, self._loop = port, wire.Frames(), Loop()
        self._containers: dict[int, Container] = {}
        self._programs: dict[int, Program] = {}
        self._sockets: dict[int, Relay] = {}
        self._by_pid: dict[int, Program] = {}
        self._ending: list[Program] = []
        # Of programs that entered and were closed.
        self._groups: list[str] = []
        self._loop.watch(port, select.EPOLLIN | select.EPOLLHUP, self._heard)

    def run(self) -> None:
        self._send(wire.HELLO, 0, b"")
        while True:
            self._loop.once(_ENDING_S if self._ending or self._groups else _IDLE_S)
            self._reap()
            self._groups = [each for each in self._groups if not roots.remove_group(each)]
            self._ending = [each for each in self._ending if not self._over(each)]

    def _send(self, kind: int, stream: int, payload: bytes) -> None:
        view = memoryview(wire.frame(kind, stream, payload))
        while view:
            view = view[os.write(self._port, view) :]

    def _heard(self, events: int) -> None:
        data = os.read(self._port, wire.CHUNK) if events & select.EPOLLIN else b""
        if not data:
            # The server is gone, and so is whoever would use this machine.
            os._exit(0)
        for kind, stream, payload in self._frames.feed(data):
            self._do(kind, stream, payload)

    def _do(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == wire.START:
            self._try(stream, self._start, _words(payload))
        elif kind == wire.DIAL:
            self._try(stream, self._dial, _words(payload))
        elif (program := self._programs.get(stream)) is not None:
            self._tell(program, kind, payload)
        elif (relay := self._sockets.get(stream)) is not None:
            if kind == wire.CLOSE:
                del self._sockets[stream]
                relay.close()
            else:
                _pass_on(relay, kind, payload)

    def _try(self, stream: int, do: Any, words: Any) -> None:
        try:
            do(stream, words)
        except OSError as error:
            self._send(wire.FAILED, stream, str(error).encode())

    # Programs

    def _start(self, stream: int, words: dict[str, Any]) -> None:
        if (inside := words.get("in")) is None:
            container, main = self._make(stream, words), True
            group = container.group
        else:
            if (found := self._containers.get(inside)) is None:
                raise OSError("the container has ended")
            container, main = found, False
            group = f"{container.group}/{stream}"
            os.mkdir(group)
        env = words["env"] if main else {**container.env, **words["env"]}
        ends = programs.Ends(words["tty"], words["stdin"], words["stdout"], words["stderr"])
        try:
            pid, complaint = programs.spawn(
                words["argv"], env, container.directory, container.root, group, ends, main=main
            )
        except OSError:
            ends.close()
            raise
        finally:
            ends.close_theirs()
        relay = Relay(self._loop, self._send, stream, ends.outputs, ends.input)
        program = Program(container, group, relay, pid, main=main)
        program.terminal = ends.terminal
        if program.terminal >= 0:
            # To a terminal's reader an end of file is a character.
            relay.last_words = b"\x04"
        self._programs[stream] = self._by_pid[pid] = program
        self._loop.watch(complaint, select.EPOLLIN, lambda _: self._complained(program, complaint))
        watched = os.pidfd_open(pid)
        self._loop.watch(watched, select.EPOLLIN, lambda _: self._gone(watched))

    def _make(self, stream: int, words: dict[str, Any]) -> Container:
        name = str(stream)
        root = roots.make_root(name, words["mounts"], words["hostname"])
        group = roots.make_group(name, words["memory"], words["pids"], words["cpu"])
        made = Container(name, root, group, words["env"], words["directory"])
        self._containers[stream] = made
        return made

    def _complained(self, program: Program, fd: int) -> None:
        data = os.read(fd, wire.CHUNK)
        program.said += data
        if data:
            return
        self._loop.forget(fd)
        os.close(fd)
        if not program.said:
            program.started = True
            self._send(wire.STARTED, program.relay.stream, b"")

    def _gone(self, fd: int) -> None:
        self._loop.forget(fd)
        os.close(fd)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if (program := self._by_pid.pop(pid, None)) is not None:
                code = os.waitstatus_to_exitcode(status)
                program.status = 128 - code if code < 0 else code
                if program.main:
                    roots.kill(program.group)
                self._ending.append(program)

    def _over(self, program: Program) -> bool:
        """Tells of the end once nothing is left; whether it was told."""
        relay = program.relay
        for channel in list(relay.outputs):
            left = _DRAIN_MAX
            while left and relay.read(channel):
                left -= 1
        if program.main and (relay.outputs or not roots.is_empty(program.group)):
            return False
        if not program.said and not program.started:
            return False
        stream, status = relay.stream, program.status or 0
        oom = program.main and roots.oom_kills(program.group) > 0
        if program.said:
            self._send(wire.FAILED, stream, program.said)
        else:
            self._send(wire.EXIT, stream, wire.EXIT_PAYLOAD.pack(status & 0xFF, oom))
        if program.main:
            self._containers.pop(stream, None)
            roots.remove(program.container.name, program.group)
        elif program.said:
            self._groups.append(program.group)
        if program.main or program.said:
            self._forget(program)
        return True

    def _forget(self, program: Program) -> None:
        self._programs.pop(program.relay.stream, None)
        program.relay.close()
        if program.terminal >= 0:
            os.close(program.terminal)
            program.terminal = -1

    def _tell(self, program: Program, kind: int, payload: bytes) -> None:
        if kind == wire.SIGNAL and program.status is None:
            os.kill(program.pid, payload[0])
        elif kind == wire.KILL:
            self._kill(program)
        elif kind == wire.RESIZE and program.terminal >= 0:
            columns, rows = wire.SIZE_PAYLOAD.unpack(payload)
            fcntl.ioctl(program.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        elif kind == wire.CLOSE and not program.main:
            self._kill(program)
            self._forget(program)
            self._groups.append(program.group)
        else:
            _pass_on(program.relay, kind, payload)

    def _kill(self, program: Program) -> None:
        with suppress(OSError):  # its group may have gone with the container
            roots.kill(program.group)

    # Connections

    def _dial(self, stream: int, port: int) -> None:
        import socket  # noqa: PLC0415  a tenth of a second that most guests never need

        failure = OSError("no address family")
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                made = socket.socket(family, socket.SOCK_STREAM)
                made.settimeout(2)
                made.connect((host, port))
            except OSError as error:
                failure = error
                continue
            made.setblocking(False)
            self._send(wire.STARTED, stream, b"")
            output = os.dup(made.fileno())
            relay = Relay(self._loop, self._send, stream, {wire.STDOUT: output}, os.dup(output))
            # The socket itself is kept for as long as somebody may end its one half.
            relay.end_of_input = partial(made.shutdown, socket.SHUT_WR)
            self._sockets[stream] = relay
            return
        raise failure


def _words(payload: bytes) -> Any:
    return marshal.loads(payload)  # noqa: S302  the guest has nobody to trust but the server


def _pass_on(relay: Relay, kind: int, payload: bytes) -> None:
    if kind == wire.DATA:
        relay.give(payload[1:])
    elif kind == wire.END:
        relay.end()
    elif kind == wire.TAKEN:
        relay.taken(*wire.TAKEN_PAYLOAD.unpack(payload))


def _find_port() -> int:
    places = "/sys/class/virtio-ports"
    for name in os.listdir(places):
        with open(f"{places}/{name}/name") as file:
            if file.read().strip() == wire.PORT:
                return os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
    raise OSError("no port to the server")


def main() -> None:
    for directory in ("/dev/pts", _SHARED_MEMORY, roots.ROOTS):
        os.makedirs(directory, exist_ok=True)
    roots.mount("devpts", "/dev/pts", "devpts", 0, "mode=0620,ptmxmode=0666")
    roots.mount("tmpfs", _SHARED_MEMORY, "tmpfs", 0, "mode=1777")
    roots.mount("cgroup2", roots.GROUPS, "cgroup2")
    for name, target in (
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        os.symlink(target, f"/dev/{name}")
    with open(f"{roots.GROUPS}/cgroup.subtree_control", "w") as file:
        file.write(_CONTROLLERS)
    Agent(_find_port()).run()

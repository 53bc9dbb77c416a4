"""A program in the guest: how it is started, and its ends of pipes or a terminal."""

from __future__ import annotations

import ctypes
import fcntl
import os
import termios

START_CODE = 128
_SIGPIPE = 13
_libc = ctypes.CDLL(None, use_errno=True)


class Ends:
    """Descriptors of one program: `theirs` become its 0, 1 and 2; ours are by channel."""

    def __init__(self, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> None:
        self.input = -1
        self.outputs: dict[int, int] = {}
        self.terminal = -1
        if tty:
            ours, theirs = os.openpty()
            self.theirs = [theirs, theirs, theirs]
            self.terminal = ours
            self.input, self.outputs = os.dup(ours), {1: os.dup(ours)}
        else:
            self.theirs = [-1, -1, -1]
            if stdin:
                self.theirs[0], self.input = os.pipe()
            for channel, wanted in ((1, stdout), (2, stderr)):
                if wanted:
                    self.outputs[channel], self.theirs[channel] = os.pipe()
            self.theirs = [os.open(os.devnull, os.O_RDWR) if each < 0 else each for each in self.theirs]
        for fd in (*self.outputs.values(), self.input):
            if fd >= 0:
                os.set_blocking(fd, False)

    def close_theirs(self) -> None:
        for fd in set(self.theirs):
            os.close(fd)

    def close(self) -> None:
        for fd in (*self.outputs.values(), self.input, self.terminal):
            if fd >= 0:
                os.close(fd)
        self.outputs, self.input, self.terminal = {}, -1, -1


def spawn(
    argv: list[str], env: dict[str, str], directory: str, root: str, group: str, ends: Ends, *, main: bool
) -> tuple[int, int]:
    """Forks the program: (process id, descriptor that says why it could not start, or nothing).

    `main`: its working directory is made when it is not there.
    """
    complaint, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(tell)
        os.set_blocking(complaint, False)
        return pid, complaint
    why = ""
    try:
        os.setsid()
        with open(f"{group}/cgroup.procs", "w") as file:
            file.write("0")
        if ends.terminal >= 0:
            fcntl.ioctl(ends.theirs[0], termios.TIOCSCTTY, 0)
        for number, fd in enumerate(ends.theirs):
            os.dup2(fd, number)
        os.chroot(root)
        why = _enter(directory, main)
        if not why:
            path, why = _find(argv[0], env.get("PATH", ""))
            if not why:
                _libc.signal(_SIGPIPE, None)
                os.execve(path, argv, env)  # noqa: S606
    except OSError as error:
        why = f'exec: "{argv[0]}": {(error.strerror or str(error)).lower()}'
    except BaseException as error:  # a child never goes on as its parent
        why = str(error)
    os.write(tell, why.encode(errors="replace")[:4000])
    os._exit(START_CODE)


def _enter(directory: str, make: bool) -> str:
    try:
        if make:
            os.makedirs(directory, exist_ok=True)
        os.chdir(directory)
    except OSError:
        return f'chdir to cwd ("{directory}") failed: no such directory, and it cannot be made'
    return ""


def _find(name: str, search_path: str) -> tuple[str, str]:
    """Where the program is, and in runc's words why it cannot be run."""
    said = f'exec: "{name}"'
    if "/" in name:
        if not os.path.exists(name):
            return "", f"{said}: stat {name}: no such file or directory"
        if os.path.isdir(name):
            return "", f"{said}: is a directory"
        return (name, "") if os.access(name, os.X_OK) else ("", f"{said}: permission denied")
    for directory in search_path.split(":"):
        path = f"{directory}/{name}"
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path, ""
    return "", f"{said}: executable file not found in $PATH"

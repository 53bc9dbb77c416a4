"""The command lines that put a container's program into its sandbox. Pure but for looking at what exists.

    sh ENTER -> bwrap -> setpriv -> sh LAUNCH -> program

ENTER steps into the control groups, bubblewrap makes the namespaces, setpriv gives up root for good, LAUNCH
looks the program up. Descriptor 3 is the writing end of a pipe on which LAUNCH tells the server how far it
came; what is standard input, output and error from the beginning is the program's.

    sh ENTER -> setpriv -> nsenter -> setsid -> sh LAUNCH -> program

is the way into a container that runs: no_new_privs before anything else, the container's own uid before
anything of its file system is executed.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from walras.runtimes.base import ContainerSpec, Limits, Mount

# "root": bubblewrap with the server's privileges, programs under a uid of their own. "user": bubblewrap in a
# user namespace. "plain": no bubblewrap, a session of its own and nothing more.
Mode = Literal["root", "user", "plain"]

STARTED: Final = "started"
FAILED: Final = "failed:"
START_CODE: Final = 128
NO_LIMITS: Final = Limits()
# Where LAUNCH tells how far it came.
TELL_FD: Final = 3
# Where a container's environment comes from.
ENVIRONMENT_FD: Final = 4
# Where a program that enters has to go through two user namespaces.
OUTER_FD: Final = 4
INNER_FD: Final = 5
# What a container inherits of the server's begins here.
INHERITED_FD: Final = 6
TMP_BYTES_MAX: Final = 2 << 30

ENTER: Final = """
cd /
while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done
shift
ulimit -c 0
exec "$@"
"""

# The container's environment is set only here, when there is no privilege left that LD_PRELOAD could borrow.
# Its variables may have any name, so those of the script have one that nobody picks.
LAUNCH: Final = """
set -f
@LIMITS@
_walras_fail() { printf 'failed:%s\\n' "$1" >&@TELL@; exit 128; }
_walras_final() { exec "$@" @CLOSED@; }
_walras_exec() { _walras_final "$@"; }
cd -- "$1" 2>/dev/null || { @MAKE_DIRECTORY@ && cd -- "$1" 2>/dev/null; } ||
  _walras_fail "chdir to cwd (\\"$1\\") failed: no such directory, and it cannot be made"
if [ -n "$2" ]; then . "$2"; fi
shift 2
unset OLDPWD
case "$1" in
*/*)
  [ -e "$1" ] || _walras_fail "exec: \\"$1\\": stat $1: no such file or directory"
  [ -d "$1" ] && _walras_fail "exec: \\"$1\\": is a directory"
  [ -x "$1" ] || _walras_fail "exec: \\"$1\\": permission denied" ;;
*)
  _walras_found=
  IFS=:
  for _walras_dir in $PATH; do
    if [ -f "$_walras_dir/$1" ] && [ -x "$_walras_dir/$1" ]; then _walras_found=1; break; fi
  done
  unset IFS
  [ -n "$_walras_found" ] || _walras_fail "exec: \\"$1\\": executable file not found in \\$PATH" ;;
esac
printf 'started\\n' >&@TELL@
_walras_exec "$@"
"""
_MAKE_DIRECTORY: Final = 'mkdir -p -- "$1" 2>/dev/null'
OWN_DIRECTORY: Final = "/run/walras"
_ENV_FILE: Final = f"{OWN_DIRECTORY}/env"
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC: Final = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "fonts", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "magic", "mime.types", "nsswitch.conf", "pki/tls/certs", "protocols",
    "services", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone",
)  # fmt: skip
_UID_FIRST: Final = 600_000_000
_UID_COUNT: Final = 100_000_000


def uid_of(cluster: str) -> int:
    """The uid, and gid, of an agent's programs in mode "root": outside the ranges that systems give out."""
    return _UID_FIRST + zlib.crc32(cluster.encode()) % _UID_COUNT


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs of this machine by path; "" for one that is not there."""

    bwrap: str
    setpriv: str
    nsenter: str = ""
    setsid: str = ""
    shell: str = "/bin/sh"


@dataclass(frozen=True, slots=True)
class Place:
    """The network of a pod's programs: they are started in `namespace`, or enter it by `way_in`.

    Without either bubblewrap makes one.
    """

    namespace: int | None = None
    way_in: tuple[str, ...] = ()

    @property
    def is_given(self) -> bool:
        return self.namespace is not None or bool(self.way_in)


NO_PLACE: Final = Place()


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How containers are shut in here. `hidden` directories are never seen from inside."""

    mode: Mode
    tools: Tools
    hidden: tuple[Path, ...] = ()
    identities: Path | None = None

    def command(
        self,
        spec: ContainerSpec,
        entrances: Sequence[str] = (),
        *,
        place: Place = NO_PLACE,
        rlimits: Limits = NO_LIMITS,
    ) -> list[str]:
        """The whole command line. Mounts and working directory are absolute and normalised.

        `ENVIRONMENT_FD` is to have `environment_script`; in mode "plain" the environment is the child's own.
        `rlimits`: for the user's processes and for each process's data, where no cgroup
        holds them.
        """
        if self.mode == "plain":
            guard = [self.tools.setpriv, "--pdeathsig", "KILL", "--"] if self.tools.setpriv else []
            script = _launch("false", Limits(memory_bytes=rlimits.memory_bytes))
            inner = [
                *guard,
                *self._terminal(spec.tty, "--wait"),
                self.tools.shell,
                "-c",
                script,
                "walras",
                spec.working_dir,
                "",
                *spec.argv,
            ]
        else:
            script = _launch(_MAKE_DIRECTORY, rlimits)
            launch = [self.tools.shell, "-c", script, "walras", spec.working_dir, _ENV_FILE, *spec.argv]
            bubblewrap = self._bubblewrap(spec, not place.is_given)
            terminal = self._terminal(spec.tty)
            inner = [*place.way_in, *bubblewrap, "--", *self._drop(spec), *terminal, *launch]
        return [self.tools.shell, "-c", ENTER, "walras", *entrances, "--", *inner]

    def _terminal(self, tty: bool, *more: str) -> list[str]:
        """Makes standard input what the program's session is controlled from."""
        return [self.tools.setsid, "--ctty", *more] if tty and self.tools.setsid else []

    def entering(
        self,
        spec: ContainerSpec,
        argv: Sequence[str],
        pid: int,
        entrances: Sequence[str] = (),
        *,
        tty: bool = False,
        rlimits: Limits = NO_LIMITS,
        place: Place = NO_PLACE,
        nested: bool = False,
    ) -> list[str]:
        """The command line of another program in the container of which `pid` is a process.

        `nested`: there are two user namespaces to go through, whose descriptors are `OUTER_FD`, `INNER_FD`.
        In mode "plain" `argv` and `spec` are adapted, the environment is the child's own.
        """
        terminal = self._terminal(tty, "--wait")
        if self.mode == "plain":
            script = _launch("false", Limits(memory_bytes=rlimits.memory_bytes))
            inner = [*terminal, self.tools.shell, "-c", script, "walras", spec.working_dir, "", *argv]
        else:
            script = _launch("false", rlimits)
            launch = [self.tools.shell, "-c", script, "walras", spec.working_dir, _ENV_FILE, *argv]
            inner = [*self._nsenter(spec, pid, place, nested), *terminal, *launch]
        return [self.tools.shell, "-c", ENTER, "walras", *entrances, "--", *inner]

    def _nsenter(self, spec: ContainerSpec, pid: int, place: Place, nested: bool) -> list[str]:
        namespaces = ["--mount", "--pid", "--ipc", "--uts", *([] if place.is_given else ["--net"])]
        if self.mode == "root":
            uid = str(uid_of(spec.pod.cluster))
            # Capabilities go with the uid; without new privileges none ever come back.
            identity = ["--cgroup", "--setuid", uid, "--setgid", uid]
        else:
            user = f"--user=/proc/self/fd/{OUTER_FD}" if nested else "--user"
            identity = [user, "--preserve-credentials"]
        drop = [self.tools.setpriv, "--no-new-privs", "--"] if self.tools.setpriv else []
        way_in = [
            *drop,
            *place.way_in,
            self.tools.nsenter,
            "--target",
            str(pid),
            *namespaces,
            *identity,
            "--",
        ]
        if nested:
            own = f"--user=/proc/self/fd/{INNER_FD}"
            way_in += [self.tools.nsenter, own, "--preserve-credentials", "--"]
        if self.mode == "user" and os.geteuid() == 0:
            # Root of a user namespace keeps its capabilities until it is told not to.
            way_in += [self.tools.setpriv, "--bounding-set=-all", "--inh-caps=-all", "--"]
        return way_in

    def _drop(self, spec: ContainerSpec) -> list[str]:
        if self.mode != "root":
            return []
        uid = str(uid_of(spec.pod.cluster))
        return [
            self.tools.setpriv, "--reuid", uid, "--regid", uid, "--clear-groups",
            "--bounding-set=-all", "--inh-caps=-all", "--",
        ]  # fmt: skip

    def _bubblewrap(self, spec: ContainerSpec, own_network: bool) -> list[str]:
        argv = [
            # A terminal takes a session that the program begins itself.
            self.tools.bwrap, "--die-with-parent", *([] if spec.tty else ["--new-session"]),
            "--clearenv", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
            "--hostname", spec.pod.name[:63], "--cap-drop", "ALL",
        ]  # fmt: skip
        if own_network:
            argv += ["--unshare-net"]
        if self.mode == "root":
            for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
                argv += ["--cap-add", capability]
        else:
            argv += ["--unshare-user"]
        argv += self._file_system(spec)
        argv += ["--perms", "0444", "--ro-bind-data", str(ENVIRONMENT_FD), _ENV_FILE]
        # Last: what bubblewrap makes below a volume, root makes wherever the agent's symbolic links lead.
        return [*argv, *self._mounts(spec)]

    def _file_system(self, spec: ContainerSpec) -> Iterator[str]:
        for path in _SYSTEM:
            if os.path.islink(path):
                yield from ("--symlink", os.readlink(path), path)
            elif os.path.isdir(path):
                yield from ("--ro-bind", path, path)
        yield from ("--perms", "0755", "--dir", "/etc")
        for name in _ETC:
            if "/" in name:
                yield from _parents(f"/etc/{name}")
            yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")
        yield from self._passwd(spec)
        yield from ("--dev", "/dev", "--proc", "/proc")
        for path in ("/tmp", "/run", "/dev/shm"):  # noqa: S108
            yield from ("--perms", "1777", "--size", str(TMP_BYTES_MAX), "--tmpfs", path)
        for prefix in python_prefixes():
            yield from _parents(prefix)
            yield from ("--ro-bind", prefix, prefix)
        for hidden in map(str, self.hidden):
            if any(_below(hidden, seen) for seen in (*python_prefixes(), *_SYSTEM)):
                yield from ("--tmpfs", hidden)
        for device in spec.devices:
            yield from ("--dev-bind-try", device, device)
        if not _below_any(spec.working_dir, spec.mounts):
            yield from _parents(spec.working_dir)
            yield from ("--perms", "0777", "--dir", spec.working_dir)

    def _mounts(self, spec: ContainerSpec) -> Iterator[str]:
        for mount in sorted(spec.mounts, key=lambda each: each.target):
            if not _below_any(mount.target, ()):
                yield from _parents(mount.target)
            yield from ("--ro-bind" if mount.read_only else "--bind", mount.source, mount.target)

    def _passwd(self, spec: ContainerSpec) -> Iterator[str]:
        if self.identities is None:
            return
        for name in write_identities(self.identities, spec.pod.cluster, self.mode):
            yield from ("--ro-bind", str(self.identities / name), f"/etc/{name.rpartition('.')[2]}")


def _launch(make_directory: str, rlimits: Limits) -> str:
    lines = []
    if rlimits.pids is not None:
        # The same limit has one letter in dash and another in bash.
        lines.append(f"ulimit -p {rlimits.pids} 2>/dev/null || ulimit -u {rlimits.pids} 2>/dev/null")
    if rlimits.memory_bytes is not None:
        lines.append(f"ulimit -d {-(-rlimits.memory_bytes // 1024)}")
    script = LAUNCH.replace("@MAKE_DIRECTORY@", make_directory).replace("@LIMITS@", "\n".join(lines))
    closed = f"{TELL_FD}>&- {OUTER_FD}>&- {INNER_FD}>&-"
    return script.replace("@TELL@", str(TELL_FD)).replace("@CLOSED@", closed)


def environment_script(env: Mapping[str, str]) -> bytes:
    """A shell script that exports the variables, also those whose names a shell has no word for."""
    named = {name: value for name, value in env.items() if _IDENTIFIER.fullmatch(name)}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in named.items()]
    if odd := [shlex.quote(f"{name}={value}") for name, value in env.items() if name not in named]:
        lines.append(f'_walras_exec() {{ _walras_final /usr/bin/env {" ".join(odd)} "$@"; }}')
    return "\n".join([*lines, ""]).encode(errors="surrogateescape")


def write_identities(directory: Path, cluster: str, mode: Mode) -> tuple[str, str]:
    """Files for /etc/passwd and /etc/group that name the uid a program finds itself under."""
    uid, gid = (uid_of(cluster), uid_of(cluster)) if mode == "root" else (os.getuid(), os.getgid())
    names = f"{uid}.passwd", f"{uid}.group"
    texts = (
        f"root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:{uid}:{gid}:agent:/tmp:/bin/sh\n",
        f"root:x:0:\nagent:x:{gid}:\n",
    )
    for name, text in zip(names, texts, strict=True):
        if not (directory / name).exists():
            directory.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
    return names


def python_prefixes() -> list[str]:
    """Where the server's own Python is, when that is outside the system's directories."""
    prefixes = dict.fromkeys(os.path.realpath(each) for each in (sys.base_prefix, sys.prefix))
    return [each for each in prefixes if not _below(each, "/usr") and each != "/"]


def etc_files() -> tuple[str, ...]:
    """Names below /etc of what every container sees of this machine's."""
    return _ETC


def search_path() -> str:
    """$PATH of containers: the server's Python first, so that `python` is the one known to be there."""
    own = [os.path.join(each, "bin") for each in dict.fromkeys((sys.prefix, sys.base_prefix))]
    system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    return ":".join(dict.fromkeys([*own, *system]))


def _parents(path: str) -> Iterator[str]:
    """Makes the directories above `path`, which bubblewrap would make for the owner alone."""
    for parent in reversed(Path(path).parents[:-1]):
        yield from ("--perms", "0755", "--dir", str(parent))


def _below(path: str, ancestor: str) -> bool:
    return path == ancestor or path.startswith(ancestor.rstrip("/") + "/")


def _below_any(path: str, mounts: Sequence[Mount]) -> bool:
    fixed = (*python_prefixes(), "/usr", "/bin", "/lib", "/etc", "/dev", "/proc", "/tmp", "/run")  # noqa: S108
    return path == "/" or any(_below(path, each) for each in (*fixed, *(mount.target for mount in mounts)))

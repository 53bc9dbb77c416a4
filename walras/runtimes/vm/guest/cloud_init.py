"""The first program of a machine of its own: applies cloud-init's data, then is up until it is stopped.

Of cloud-config it knows hostname, write_files, bootcmd, runcmd and final_message, and says what it does not.
Run as a script inside the guest, by a Python with PyYAML.
"""

from __future__ import annotations

import base64
import gzip
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

SEEDS = ("/var/lib/cloud/seed/nocloud", "/var/lib/cloud/seed/secret")
_USER_DATA = ("user-data", "userdata", "userData")
_KNOWN = frozenset(("hostname", "fqdn", "write_files", "bootcmd", "runcmd", "final_message"))
# The first place of the search path, as the pod has it.
_PROGRAMS = "/run/bin"
_STOPS = ("poweroff", "halt", "shutdown")


def say(text: str) -> None:
    print(text, flush=True)


def user_data(seeds: tuple[str, ...] = SEEDS) -> str:
    """The first user data that there is; "" for none."""
    for seed in seeds:
        for name in _USER_DATA:
            path = Path(seed, name)
            if path.exists():
                return path.read_text(errors="replace")
    return ""


def apply(text: str, root: str = "/") -> int:
    """Does what the user data says below `root`: how many of its commands failed."""
    if text.startswith("#!"):
        return _script(text, root)
    if not text.strip():
        return 0
    if not text.startswith("#cloud-config"):
        say("cloud-init: user data is neither #cloud-config nor a script, and is left alone")
        return 1
    import yaml  # noqa: PLC0415  a second under emulation, which a script need not wait for

    try:
        config = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        say(f"cloud-init: user data is no YAML: {' '.join(str(error).split())}")
        return 1
    if not isinstance(config, dict):
        say("cloud-init: user data is no mapping")
        return 1
    return _config(config, root)


def _config(config: Mapping[str, Any], root: str) -> int:
    failures = 0
    for name in sorted(set(map(str, config)) - _KNOWN):
        say(f"cloud-init: {name} is not applied here")
    hostname = str(config.get("hostname") or config.get("fqdn") or "").partition(".")[0]
    if hostname:
        failures += not _done("hostname", _rename, hostname, root)
    for name, act in (("bootcmd", _run), ("write_files", partial(_write, root=root)), ("runcmd", _run)):
        entries = config.get(name) or ()
        if not isinstance(entries, list | tuple):
            say(f"cloud-init: {name} is no list")
            failures += 1
            continue
        failures += sum(not _done(name, act, each) for each in entries)
    if config.get("final_message"):
        say(str(config["final_message"]))
    return failures


def _done(name: str, act: Callable[..., bool], *arguments: Any) -> bool:
    """Whether the act went well; what is wrong with its arguments is said, and the boot goes on."""
    try:
        return act(*arguments)
    except (OSError, EOFError, ValueError, TypeError, KeyError, zlib.error) as error:
        say(f"cloud-init: {name}: {type(error).__name__}: {error}")
        return False


def _rename(hostname: str, root: str) -> bool:
    Path(root, "proc/sys/kernel/hostname").write_text(hostname)
    Path(root, "etc/hostname").write_text(hostname + "\n")
    return True


def _write(entry: Any, root: str) -> bool:
    if not isinstance(entry, Mapping):
        raise TypeError(f"{entry!r} is no mapping with a path and content")
    data = str(entry.get("content") or "").encode()
    encoding = str(entry.get("encoding") or "")
    if encoding in {"b64", "base64", "gz+b64", "gz+base64", "gzip+b64", "gzip+base64"}:
        data = base64.b64decode(data)
    if encoding.startswith("gz"):
        data = gzip.decompress(data)
    path = Path(root, str(entry["path"]).lstrip("/"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab" if entry.get("append") else "wb") as file:
        file.write(data)
    path.chmod(int(str(entry.get("permissions") or "0644"), 8))
    return True


def _run(command: Any) -> bool:
    argv = list(map(str, command)) if isinstance(command, list) else ["sh", "-c", str(command)]
    try:
        code = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL).returncode
    except OSError as error:
        say(f"cloud-init: {argv[0]}: {error.strerror}")
        return False
    if code:
        say(f"cloud-init: {' '.join(argv)}: exit code {code}")
    return code == 0


def _script(text: str, root: str) -> int:
    path = Path(root, "run/user-data")
    path.write_text(text)
    path.chmod(0o755)
    return 0 if _run([str(path)]) else 1


def _make_stops() -> None:
    """`poweroff` and its kin end the machine by ending this program, which is what it is up for."""
    Path(_PROGRAMS).mkdir(parents=True, exist_ok=True)
    for name in _STOPS:
        path = Path(_PROGRAMS, name)
        path.write_text(f"#!/bin/sh\nkill -TERM {os.getpid()}\n")
        path.chmod(0o755)


def main() -> None:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        say("The machine is going down.")
        os.sync()
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    say(f"Linux {os.uname().release} on {os.uname().nodename}")
    _make_stops()
    failures = apply(user_data())
    say("cloud-init: done" if not failures else f"cloud-init: done, {failures} failed")
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
